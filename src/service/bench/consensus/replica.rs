//! One replica of a bench: links, journal and the consensus task, and perhaps the client.
//!
//! It follows its driver's orders and decides nothing. Invariant: it ends when its driver does.

use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin},
    net::TcpListener,
    task::JoinHandle,
};

use super::{
    client::{Client, Phase, TaskEnded},
    protocol::{Counts, Order, Said},
};
use crate::{
    consensus::{
        Config, ViewTimes,
        journal::{JournalError, SALT_BYTES, Salt},
        task::{self, Event, Handles, StartError},
        transport::{LinkSender, Links, LinksConfig, LinksError},
    },
    service::clock,
    types::{Committee, CommitteeError, Digest, Epoch, ReplicaIndex, SecretKey},
};

/// How often it is looked whether all links are up.
const LINK_POLL: Duration = Duration::from_millis(10);

/// Whose place a process takes.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The place.
    pub place: u16,
    /// How many replicas there are.
    pub replicas: u16,
    /// The journal's folder.
    pub journal: PathBuf,
}

/// Why a replica of a bench ends.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError<E> {
    /// What it says cannot be written.
    #[error("the driver does not listen")]
    Say(#[source] E),
    /// An order is not understood.
    #[error("not an order: {0}")]
    Order(String),
    /// No such committee.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The journal is refused.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The links.
    #[error(transparent)]
    Links(#[from] LinksError),
    /// The consensus task ended unasked.
    #[error("the consensus task ended")]
    TaskEnded,
}

impl<E> From<TaskEnded> for ReplicaError<E> {
    fn from(TaskEnded: TaskEnded) -> Self {
        Self::TaskEnded
    }
}

/// A bench's keys are no secret: its cluster lives on loopback for some seconds and decides nothing.
fn key(place: u16) -> SecretKey {
    SecretKey::from_seed(Digest::of_value(&("quorate bench", place)).as_bytes())
}

/// Takes the seat until the driver closes standard input.
///
/// # Errors
/// [`ReplicaError`].
pub async fn run<E>(seat: Seat, mut say: impl FnMut(&Said) -> Result<(), E>) -> Result<(), ReplicaError<E>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    say(&Said::Listening { address }).map_err(ReplicaError::Say)?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let addresses = match next_order(&mut orders).await? {
        Some(Order::Meet { addresses }) => addresses,
        Some(Order::Load(_) | Order::Count) => {
            return Err(ReplicaError::Order("the links come first".to_owned()));
        }
        None => return Ok(()),
    };
    let (handles, consensus, links) = start(&seat, listener, addresses)?;
    let sender = links.sender();
    while !all_linked(&sender) {
        tokio::time::sleep(LINK_POLL).await;
    }
    say(&Said::Linked).map_err(ReplicaError::Say)?;
    let obeyed = obey(handles, &mut orders, &mut say).await;
    let ended = consensus.await;
    links.shutdown().await;
    match ended {
        Ok(Ok(())) => obeyed,
        Ok(Err(_)) | Err(_) => Err(ReplicaError::TaskEnded),
    }
}

type Consensus = JoinHandle<Result<(), JournalError>>;

fn start<E>(
    seat: &Seat,
    listener: TcpListener,
    peers: Vec<String>,
) -> Result<(Handles, Consensus, Links), ReplicaError<E>> {
    let members = (0..seat.replicas).map(|place| key(place).public()).collect();
    let committee = Committee::new(Digest::of(b"quorate bench"), Epoch::new(1), members)?;
    let (me, secret) = (ReplicaIndex::new(seat.place), key(seat.place));
    let config = Config {
        committee: Arc::new(committee.clone()),
        me,
        key: secret.clone(),
        times: ViewTimes::default(),
        checkpoint_interval: 0,
    };
    let (opened, _) = task::open(config, &seat.journal, Salt::new([0; SALT_BYTES]))?;
    let (links, inbox) =
        Links::start(LinksConfig { committee, me, secret, listener, peers, now: clock::wall_clock })?;
    let (handles, ends) = task::channels();
    // On a thread of its own, as in a replica.
    let runtime = tokio::runtime::Handle::current();
    let running = task::run(opened, links.sender(), inbox, ends);
    let consensus = tokio::task::spawn_blocking(move || runtime.block_on(running));
    Ok((handles, consensus, links))
}

fn all_linked(links: &LinkSender) -> bool {
    links.status().peers.iter().all(|link| link.sending_since.is_some() && link.receiving_since.is_some())
}

async fn next_order<E>(orders: &mut Lines<BufReader<Stdin>>) -> Result<Option<Order>, ReplicaError<E>> {
    let Some(line) = orders.next_line().await? else { return Ok(None) };
    serde_json::from_str(&line).map(Some).map_err(|error| ReplicaError::Order(error.to_string()))
}

async fn obey<E>(
    handles: Handles,
    orders: &mut Lines<BufReader<Stdin>>,
    say: &mut impl FnMut(&Said) -> Result<(), E>,
) -> Result<(), ReplicaError<E>> {
    let Handles { requests, mut events, status } = handles;
    let mut client: Option<Client> = None;
    let mut counts = Counts::default();
    loop {
        let due = client.as_ref().map(Client::due);
        let turn = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = next_order(orders) => match order? {
                Some(Order::Load(load)) => {
                    let mut new = Client::new(load, requests.clone());
                    new.refill().await?;
                    client = Some(new);
                }
                Some(Order::Count) => {
                    counts.syncs = status.borrow().syncs;
                    say(&Said::Counted(counts)).map_err(ReplicaError::Say)?;
                }
                Some(Order::Meet { .. }) => {
                    return Err(ReplicaError::Order("the links stand already".to_owned()));
                }
                None => return Ok(()),
            },
            event = events.recv() => match event {
                Some(Event::Committed(committed)) => {
                    let payload = committed.block.payload();
                    let commands = payload.commands().len() as u64;
                    counts.blocks += 1;
                    counts.full_blocks += u64::from(commands > 0);
                    counts.commands += commands;
                    if let Some(client) = &mut client {
                        client.committed(payload);
                        client.refill().await?;
                    }
                }
                Some(
                    Event::Endorsement { .. }
                    | Event::PeerConnected(_)
                    | Event::Stable(_)
                    | Event::Diverged { .. }
                    | Event::Installed { .. }
                    | Event::Evidence(_),
                ) => {}
                None => return Err(ReplicaError::TaskEnded),
            },
            () = turn => {
                let phase = client.as_mut().map(Client::turn);
                let said = match phase {
                    Some(Phase::Measuring) => Said::Measuring,
                    Some(Phase::Measured(quantiles)) => {
                        client = None;
                        Said::Measured(quantiles)
                    }
                    None => continue,
                };
                say(&said).map_err(ReplicaError::Say)?;
            }
        }
    }
}
