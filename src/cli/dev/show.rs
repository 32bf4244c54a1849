//! What people and programs see of a development cluster.
//!
//! Programs get every event of every process. People get what is new: a window's end is told once, not by every
//! replica; each replica's own plan is told by each, because that they are equal is the point.

use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, fs::File, io::Write as _};

use super::wrap::wrapped;
use crate::{
    cli::output::{Format, Output, OutputError, terminal_width},
    service::{
        agent::Event as AgentEvent,
        dev::{ReadyInfo, Shown},
        replica::ReplicaEvent,
    },
};

/// How many things that were told once are remembered.
const REMEMBERED: usize = 4_096;

pub(super) struct Screen {
    output: Output,
    events: File,
    told: BTreeSet<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    process: &'a str,
    #[serde(flatten)]
    event: Value,
}

#[derive(Serialize)]
struct Step<'a> {
    event: &'static str,
    detail: &'a str,
}

impl Screen {
    /// Shows what comes, and keeps every event in a file.
    pub(super) const fn new(output: Output, events: File) -> Self {
        Self { output, events, told: BTreeSet::new() }
    }

    pub(super) fn show(&mut self, shown: &Shown) -> Result<(), OutputError> {
        if let Shown::Event { name, json } = shown {
            self.keep(name, json);
        }
        match (self.output.format(), shown) {
            (Format::Human, Shown::Step(step)) => self.say(step),
            (Format::Jsonl, Shown::Step(step)) => self.output.record(&Step { event: "step", detail: step }),
            (Format::Human, Shown::Ready(info)) => self.say(&ready_text(info)),
            (Format::Jsonl, Shown::Ready(info)) => {
                let event = serde_json::to_value(info).unwrap_or_default();
                self.output.record(&Line { process: "dev", event: with_name(event, "cluster_ready") })
            }
            (Format::Jsonl, Shown::Event { name, json }) => {
                let event = serde_json::from_str(json).unwrap_or_default();
                self.output.record(&Line { process: name, event })
            }
            (Format::Human, Shown::Event { name, json }) => self.show_event(name, json),
        }
    }

    fn show_event(&mut self, name: &str, json: &str) -> Result<(), OutputError> {
        if let Ok(event) = serde_json::from_str::<AgentEvent>(json) {
            return self.say(&format!("{name}: {event}"));
        }
        match serde_json::from_str::<ReplicaEvent>(json) {
            Ok(event) => self.line_of(&event).map_or(Ok(()), |line| self.say(&line)),
            // What a process writes that is no event is for people all the same.
            Err(_) if json.starts_with(name) => self.say(json),
            Err(_) => self.say(&format!("{name}: {json}")),
        }
    }

    /// A line for people, broken where their terminal ends. What goes elsewhere stays one line.
    fn say(&self, text: &str) -> Result<(), OutputError> {
        match terminal_width() {
            Some(width) => self.output.say(wrapped(text, width)),
            None => self.output.say(text),
        }
    }

    /// The line for people, unless another replica told the same.
    fn line_of(&mut self, event: &ReplicaEvent) -> Option<String> {
        let line = event.to_string();
        let once = match event {
            ReplicaEvent::PlanDerived { .. }
            | ReplicaEvent::Ready { .. }
            | ReplicaEvent::Installed { .. }
            | ReplicaEvent::Alarm { .. } => return Some(line),
            ReplicaEvent::WindowFinal { .. }
            | ReplicaEvent::Found { .. }
            | ReplicaEvent::ReceiptLogged { .. }
            | ReplicaEvent::OperatorRequest { .. }
            | ReplicaEvent::OperatorRequestRefused { .. }
            | ReplicaEvent::Checkpoint { .. }
            | ReplicaEvent::Evidence { .. }
            | ReplicaEvent::EffectSettled { .. } => {
                let (_replica, rest) = line.split_once(' ')?;
                return self.first(rest).then(|| rest.to_owned());
            }
            ReplicaEvent::PlanCertified { cycle, .. } => format!("certified {cycle}"),
            ReplicaEvent::PlanLogged { cycle, .. } => format!("logged {cycle}"),
        };
        self.first(&once).then_some(line)
    }

    fn first(&mut self, what: &str) -> bool {
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(what.to_owned())
    }

    /// Keeps an event for whoever looks later. A disk that is full must not end the cluster.
    fn keep(&mut self, name: &str, json: &str) {
        if let Ok(event) = serde_json::from_str::<Value>(json)
            && let Ok(mut line) = serde_json::to_vec(&Line { process: name, event })
        {
            line.push(b'\n');
            if let Err(error) = self.events.write_all(&line) {
                tracing::warn!(%error, "an event was not kept");
            }
        }
    }
}

/// Where everything is, and what to do next.
fn ready_text(info: &ReadyInfo) -> String {
    let first = info.replicas.first().map_or("nowhere", String::as_str);
    let last = info.replicas.last().filter(|last| *last != first);
    let replicas = last.map_or_else(|| first.to_owned(), |last| format!("{first} to {last}"));
    format!(
        "ready
  engines   post to {}
  replicas  {replicas}
  status    quorate status --replica {first}
  plans     quorate plans --replica {first}
  root      {}
  logs      {}
Ctrl-C ends everything in order, twice at once; the same command resumes",
        info.otlp,
        info.root.display(),
        info.logs.display()
    )
}

fn with_name(mut event: Value, name: &str) -> Value {
    if let Some(fields) = event.as_object_mut() {
        fields.insert("event".to_owned(), Value::String(name.to_owned()));
    }
    event
}
