//! What people and programs see of a development cluster.
//!
//! Programs get every event of every process. People get what is new: a window's end is told once, not by every
//! replica; each replica's own plan is told by each, because that they are equal is the point.

use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeSet, fmt};

use super::{Format, Output, text};
use crate::{
    cli::output::OutputError,
    service::{dev::Shown, replica::ReplicaEvent},
};

/// How many things that were told once are remembered.
const REMEMBERED: usize = 4_096;

pub(super) struct Screen {
    output: Output,
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
    pub(super) const fn new(output: Output) -> Self {
        Self { output, told: BTreeSet::new() }
    }

    pub(super) fn show(&mut self, shown: &Shown) -> Result<(), OutputError> {
        match (self.output.format(), shown) {
            (Format::Human, Shown::Step(step)) => self.output.say(step),
            (Format::Jsonl, Shown::Step(step)) => self.output.record(&Step { event: "step", detail: step }),
            (Format::Human, Shown::Ready(info)) => self.output.say(format_args!(
                "ready: engines post to {}, replica 0 answers at {}/v1/status, logs in {}; Ctrl-C ends all",
                info.otlp,
                info.replicas.first().map_or("nowhere", String::as_str),
                info.logs.display()
            )),
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
        let Ok(value) = serde_json::from_str::<Value>(json) else {
            return self.output.say(format_args!("{name}: {json}"));
        };
        match serde_json::from_value::<ReplicaEvent>(value.clone()) {
            Ok(event) => match self.line_of(&event) {
                Some(line) => self.output.say(line),
                None => Ok(()),
            },
            Err(_) => self.output.say(format_args!("{name}: {}", AgentLine(&value))),
        }
    }

    /// The line for people, unless another replica said the same.
    fn line_of(&mut self, event: &ReplicaEvent) -> Option<String> {
        let line = event.to_string();
        let (replica, rest) = line.split_once(' ').unwrap_or(("", &line));
        match event {
            ReplicaEvent::PlanDerived { .. } | ReplicaEvent::Ready { .. } | ReplicaEvent::Alarm { .. } => {
                return Some(line.clone());
            }
            ReplicaEvent::WindowFinal { .. }
            | ReplicaEvent::Found { .. }
            | ReplicaEvent::ReceiptLogged { .. }
            | ReplicaEvent::EffectSettled { .. } => {}
            ReplicaEvent::PlanCertified { cycle, .. } => {
                return self.first(format!("certified {cycle}")).then(|| line.clone());
            }
            ReplicaEvent::PlanLogged { cycle, .. } => {
                return self.first(format!("logged {cycle}")).then(|| line.clone());
            }
        }
        let _ = replica;
        self.first(rest.to_owned()).then(|| rest.to_owned())
    }

    fn first(&mut self, what: String) -> bool {
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(what)
    }
}

fn with_name(mut event: Value, name: &str) -> Value {
    if let Some(fields) = event.as_object_mut() {
        fields.insert("event".to_owned(), Value::String(name.to_owned()));
    }
    event
}

/// An event that is not a replica's: its name and its fields.
struct AgentLine<'a>(&'a Value);

impl fmt::Display for AgentLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.0, "event").replace('_', " "))?;
        for (field, value) in self.0.as_object().into_iter().flatten() {
            if field != "event" {
                write!(f, " {field}={value}")?;
            }
        }
        Ok(())
    }
}
