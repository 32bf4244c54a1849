//! Service: configuration, wiring, the HTTP API and telemetry of a running replica.

pub mod agent;
pub mod api;
pub mod bench;
pub mod clock;
pub mod config;
pub mod dev;
pub mod durable;
pub mod entrance;
pub mod founding;
pub mod health;
pub mod http_client;
pub mod http_server;
pub mod key_file;
pub mod lifecycle;
pub mod metrics;
pub mod operator_client;
pub mod plant;
pub mod postgres;
pub mod relay;
mod reload;
pub mod replica;
pub mod status;
pub mod telemetry;
pub mod tokens;
pub mod utc;
