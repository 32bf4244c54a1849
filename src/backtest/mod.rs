//! Backtest: the production loop on virtual time against a plant, to measure what a policy does before it is trusted.
//!
//! The monitors, the control cycles and the agents' rules are those of production; the clock is virtual, and the
//! log, the links and the disks are delays. It decides nothing of its own about what the loop does, and no result
//! depends on the machine: equal policies, plants and settings give equal bytes, told by a digest.
//!
//! # The loop
//!
//! - **L1** Time moves in steps. At the end of each, the plant gets an [`Order`](protocol::Order): the moment, and the states that the
//!   agents have set until then. It answers with the samples of the step, which all replicas' doors take at that
//!   moment. An order holds from its moment on: what happened before was under the orders before.
//! - **L2** Each replica looks at its clock twenty times a window. A window is reported once its grace is over; ticks and
//!   submissions are the cycle's own.
//! - **L3** A submitted command is committed 100 ms later, together with all that was submitted meanwhile, in the order
//!   of submission. No consensus protocol runs: with honest replicas it gives the same log, only later or sooner.
//! - **L4** An endorsement reaches the other replicas after 20 ms. Certificates, logged plans and heads follow as they do
//!   in production; nothing is planned, signed or logged in another way.
//! - **L5** Once a new head is certified at as many replicas as include an honest one, the agents of its shard ask 500 ms
//!   later, the longest rest between two questions. They verify everything against the root, and set the target.
//! - **L6** Receipts are ordered like every command.
//! - **L7** It ends when the plant says that it is done, when the time is over, or when the plant fails; then what it
//!   answered last is what is told.

mod agent;
mod committee;
mod keys;
mod run;

pub mod arrivals;
pub mod baseline;
pub mod protocol;
pub mod queue;

pub use keys::{OWNER, agent_key};
pub use run::{Ended, Event, Finished, Plant, PlantFailure, Settings, SettingsError, run};

#[cfg(test)]
mod tests;
