//! Opening the database: a bounded pool, the migrations, and the claim that it is this replica's.

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::time::Duration;

use super::{
    error::{ConnectError, StatementError},
    values::{Row, column_i64},
};
use crate::types::{Digest, Epoch, Millis, ReplicaIndex};

/// One connection applies blocks, the others answer the API; a private server is sized for this.
const POOL_CONNECTIONS_MAX: u32 = 8;

/// How long a caller waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The oldest server that computes `extract` exactly, which the conversion of times relies on.
const SERVER_VERSION_MIN: i32 = 140_000;

/// What every session sets. Times print in UTC, and nothing may hold a lock or a connection for ever.
const SESSION_SETTINGS: [(&str, &str); 4] = [
    ("timezone", "UTC"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "60s"),
];

/// Whose database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster.
    pub cluster: Digest,
    /// The epoch that the replica is in; a database never goes back to an earlier one.
    pub epoch: Epoch,
    /// The replica.
    pub replica: ReplicaIndex,
}

/// A replica's database. Clones share one pool.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: PgPool,
    pub(super) window: Millis,
    pub(super) generation: i64,
}

impl Store {
    /// Connects, brings the tables to this program's version and claims the database for this replica. An
    /// older process of the same replica can no longer apply blocks from then on.
    ///
    /// `window` is the windows' length, by which a window's number becomes a time.
    ///
    /// # Errors
    /// [`ConnectError`] says whether to wait, to repair the database or to choose another.
    pub async fn connect(url: &str, identity: StoreIdentity, window: Millis) -> Result<Self, ConnectError> {
        let options: PgConnectOptions = url.parse().map_err(ConnectError::Url)?;
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.application_name("quorate").options(SESSION_SETTINGS))
            .await
            .map_err(ConnectError::connecting)?;
        check_server(&pool).await?;
        sqlx::migrate!().run(&pool).await.map_err(ConnectError::Migrate)?;
        let generation = claim(&pool, identity).await?;
        Ok(Self { pool, window, generation })
    }

    /// Closes the connections once those that are in use come back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

async fn check_server(pool: &PgPool) -> Result<(), ConnectError> {
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::integer AS "number!",
                  current_setting('server_version') AS "version!",
                  current_setting('server_encoding') AS "encoding!""#
    )
    .fetch_one(pool)
    .await
    .map_err(ConnectError::connecting)?;
    if server.number < SERVER_VERSION_MIN {
        return Err(ConnectError::TooOld { version: server.version });
    }
    if server.encoding != "UTF8" {
        return Err(ConnectError::Encoding(server.encoding));
    }
    Ok(())
}

/// Writes who owns the database, or checks it, and answers with this process's generation.
async fn claim(pool: &PgPool, identity: StoreIdentity) -> Result<i64, ConnectError> {
    let cluster = identity.cluster.as_bytes().as_slice();
    let replica = i32::from(identity.replica.place());
    // An epoch past 2^63 is refused by the comparison below, as any other foreign one.
    let epoch = column_i64(identity.epoch.number());
    let generation = sqlx::query_scalar!(
        r#"INSERT INTO replica_meta AS mine (cluster, epoch, replica, generation) VALUES ($1, $2, $3, 1)
           ON CONFLICT (singleton) DO UPDATE
               SET generation = mine.generation + 1, epoch = excluded.epoch
               WHERE mine.cluster = excluded.cluster AND mine.replica = excluded.replica
                   AND mine.epoch <= excluded.epoch
           RETURNING generation"#,
        cluster,
        epoch,
        replica,
    )
    .fetch_optional(pool)
    .await
    .map_err(StatementError::on("replica_meta"))?;
    match generation {
        Some(generation) => Ok(generation),
        None => Err(wrong_replica(pool).await?),
    }
}

async fn wrong_replica(pool: &PgPool) -> Result<ConnectError, ConnectError> {
    let owner = sqlx::query!("SELECT cluster, epoch, replica FROM replica_meta")
        .fetch_one(pool)
        .await
        .map_err(StatementError::on("replica_meta"))?;
    let row = Row::new("replica_meta", "the only one");
    Ok(ConnectError::WrongReplica {
        cluster: row.digest("cluster", &owner.cluster)?,
        epoch: Epoch::new(row.counter("epoch", owner.epoch)?),
        replica: row.replica("replica", owner.replica)?,
    })
}
