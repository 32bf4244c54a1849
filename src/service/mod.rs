//! Service: configuration, wiring, the HTTP API and telemetry of a running replica.

pub mod api;
pub mod clock;
pub mod config;
pub mod health;
pub mod http_client;
pub mod metrics;
pub mod postgres;
pub mod status;
pub mod telemetry;
