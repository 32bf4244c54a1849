//! Load drivers: what this program does on this machine, measured on its own production parts.
//!
//! They report and judge nothing: no test rests on their figures. Invariant: what is measured is the code
//! that replicas run, in processes of their own wherever processors are counted.

pub mod consensus;
pub mod cycle;
pub mod detectors;
mod folder;
pub mod footprint;
pub mod ingest;
pub mod paced;
mod process;
mod quantiles;
mod random;

pub use folder::{FolderError, TemporaryFolder};
pub use process::{Usage, UsageError};
pub use quantiles::Quantiles;
