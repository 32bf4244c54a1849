//! A development cluster on one machine: replicas as processes of this program, a private Postgres or databases
//! of yours, the relay, and an agent for each target, all on loopback.
//!
//! Everything lies in one folder, so that a second start resumes, whatever ended the first one and when. It is for
//! trying and testing: one party holds all keys. Invariant: no process is left when it ends, however it ends.

mod child;
mod cluster;
mod database;
mod error;
mod folder;
mod leftovers;
mod plan;
mod ports;

pub use child::SpawnError;
pub use cluster::{DevCluster, DevConfig, ReadyInfo, Shown};
pub use database::{DatabaseTemplate, DatabaseTemplateError, DevDatabaseError};
pub use error::DevError;
pub use folder::{DevFolder, DevFolderError};
pub use plan::{Asked, DevPlan, DevPlanError};
pub use ports::{PortsTaken, TakenPort};
