//! What stands between clients and a server's routes: TLS, tokens, and the bounds of the HTTP server.
//!
//! It knows no route. Invariant: an address that other machines can reach is never served without both a
//! certificate and tokens.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use tokio::{net::TcpListener, sync::watch};

use super::{
    http_server::{HttpCounters, HttpMetrics, Server, Tls, TlsError, TlsFiles},
    tokens::{Denial, Guard, GuardCounters, ListFileError},
};

/// What a server was told about those who may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntranceConfig {
    /// The server's certificate; without one, nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; without one, everything is open.
    pub tokens: Option<PathBuf>,
}

/// The flags of an entrance, each with its environment variable; every command that serves has them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EntranceFlags {
    /// The server's certificate (PEM), with what leads to its authority
    #[arg(long, env = "QUORATE_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's key (PEM), readable by its user alone
    #[arg(long, env = "QUORATE_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// The file of tokens that let clients in; `quorate token` keeps it
    #[arg(long, env = "QUORATE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
}

impl EntranceFlags {
    /// The flags' certificate.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        let files = self.tls_certificate.clone().zip(self.tls_key.clone());
        files.map(|(certificate, key)| TlsFiles { certificate, key })
    }

    /// What the flags say.
    #[must_use]
    pub fn config(&self) -> EntranceConfig {
        EntranceConfig { tls: self.tls(), tokens: self.tokens.clone() }
    }
}

/// An address that other machines can reach, and no protection against them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines, and {missing}: listen on 127.0.0.1, or give a certificate \
     (--tls-certificate and --tls-key) and tokens (--tokens; `quorate token create` makes the first)"
)]
pub struct Unprotected {
    address: SocketAddr,
    missing: &'static str,
}

impl EntranceConfig {
    /// Whether an address may be served so: on this machine anything goes, beyond it both are needed.
    ///
    /// # Errors
    /// [`Unprotected`] says what is missing.
    pub fn allows(&self, address: SocketAddr) -> Result<(), Unprotected> {
        let missing = match (&self.tls, &self.tokens) {
            _ if address.ip().to_canonical().is_loopback() => return Ok(()),
            (Some(_), Some(_)) => return Ok(()),
            (None, None) => "there is neither a certificate nor a file of tokens",
            (None, Some(_)) => "there is no certificate",
            (Some(_), None) => "there is no file of tokens",
        };
        Err(Unprotected { address, missing })
    }

    /// What clients call this address.
    #[must_use]
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }
}

/// Why an entrance cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The address is not protected.
    #[error(transparent)]
    Unprotected(#[from] Unprotected),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of tokens.
    #[error(transparent)]
    Tokens(#[from] ListFileError),
}

/// An entrance that is ready.
#[derive(Debug)]
pub struct Entrance {
    server: Server,
    guard: Option<Guard>,
    metrics: EntranceMetrics,
}

impl Entrance {
    /// Reads certificate and tokens, and follows their changes.
    ///
    /// # Errors
    /// [`EntranceError`] says what is missing or wrong.
    pub fn open(config: &EntranceConfig, address: SocketAddr) -> Result<Self, EntranceError> {
        config.allows(address)?;
        let metrics = EntranceMetrics::default();
        let tls = config.tls.clone().map(Tls::start).transpose()?;
        let tokens = config.tokens.clone();
        let guard = tokens.map(|file| Guard::start(file, Arc::clone(&metrics.guard))).transpose()?;
        let server = Server { tls, counters: Arc::clone(&metrics.http), ..Server::default() };
        Ok(Self { server, guard, metrics })
    }

    /// `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.server.tls.is_some() { "https" } else { "http" }
    }

    /// What is counted here.
    #[must_use]
    pub fn metrics(&self) -> EntranceMetrics {
        self.metrics.clone()
    }

    /// Serves until `stop` is true, then drains for a bounded time.
    pub async fn serve(self, listener: TcpListener, routes: Router, stop: watch::Receiver<bool>) {
        let routes = match self.guard {
            Some(guard) => guard.protect(routes),
            None => routes,
        };
        self.server.serve(listener, routes, stop).await;
    }
}

/// The counters of an entrance, for a registry of metrics.
#[derive(Clone, Debug, Default)]
pub struct EntranceMetrics {
    http: Arc<HttpCounters>,
    guard: Arc<GuardCounters>,
}

impl Collector for EntranceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Requests that were not let in, by reason";
        let mut denied = encoder.encode_descriptor("http_denied", help, None, MetricType::Counter)?;
        for denial in Denial::ALL {
            let labels = [("reason", denial.as_str())];
            ConstCounter::new(self.guard.of(denial)).encode(denied.encode_family(&labels)?)?;
        }
        HttpMetrics(Arc::clone(&self.http)).encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::{EntranceConfig, TlsFiles};

    #[test]
    fn beyond_this_machine_a_certificate_and_tokens_are_needed() {
        let tls = Some(TlsFiles { certificate: "c".into(), key: "k".into() });
        let tokens = Some("t".into());
        let bare = EntranceConfig::default();
        let encrypted = EntranceConfig { tls: tls.clone(), tokens: None };
        let guarded = EntranceConfig { tls: None, tokens: tokens.clone() };
        let both = EntranceConfig { tls, tokens };
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let address = address.parse().expect("an address");
            for config in [&bare, &encrypted, &guarded, &both] {
                assert_eq!(config.allows(address), Ok(()), "{address} {config:?}");
            }
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[2001:db8::1]:1"] {
            let address = address.parse().expect("an address");
            assert_eq!(both.allows(address), Ok(()), "{address}");
            for (config, words) in [
                (&bare, "and there is neither a certificate nor a file of tokens"),
                (&encrypted, "and there is no file of tokens"),
                (&guarded, "and there is no certificate"),
            ] {
                let error = config.allows(address).expect_err("it is not protected").to_string();
                assert!(error.contains(words) && error.contains("listen on 127.0.0.1"), "{error}");
            }
        }
    }
}
