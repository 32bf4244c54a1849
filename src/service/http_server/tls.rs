//! The server's certificate: read from PEM files, and read again when they change.
//!
//! Links between replicas have keys and rules of their own; this is for clients. Invariant: a server that was
//! told to use TLS never serves without it, and a certificate that cannot be read leaves the last one in use.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::service::reload;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what leads to its authority (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM), readable by its owner alone.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others can read the key.
    #[error("others can read the TLS key {0}: chmod 600 {0}", path.display())]
    Readable {
        /// The key.
        path: PathBuf,
    },
    /// A file holds no PEM of the kind.
    #[error("{} holds no {what} in PEM form: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// The two do not fit.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
}

/// A certificate in use.
#[derive(Clone)]
pub struct Tls {
    newest: watch::Receiver<TlsAcceptor>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads certificate and key, and follows their changes.
    ///
    /// # Errors
    /// [`TlsError`] says which file is wrong, and how.
    pub fn start(files: TlsFiles) -> Result<Self, TlsError> {
        let paths = vec![files.certificate.clone(), files.key.clone()];
        reload::follow("certificate", paths, move || read(&files)).map(|newest| Self { newest })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.newest.borrow().clone()
    }
}

fn read(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let malformed = |path: &Path, what, why: &dyn fmt::Display| TlsError::Malformed {
        path: path.to_owned(),
        what,
        why: why.to_string(),
    };
    let path = &files.certificate;
    let pem = reload::read(path).map_err(|error| TlsError::Unreadable { path: path.clone(), error })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|why| malformed(path, "certificate", &why))?;
    if chain.is_empty() {
        return Err(malformed(path, "certificate", &"there is none"));
    }
    let path = &files.key;
    let unreadable = |error| TlsError::Unreadable { path: path.clone(), error };
    if reload::others_can_read(path).map_err(unreadable)? {
        return Err(TlsError::Readable { path: path.clone() });
    }
    let pem = reload::read(path).map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|why| malformed(path, "key", &why))?;
    let refused = |why| TlsError::Refused { path: files.certificate.clone(), why };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        // TLS 1.3, and 1.2 for engines whose runtimes are older; rustls has only its suites with forward secrecy.
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
