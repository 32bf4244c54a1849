//! How a client is let in, and whom it trusts: [`ClientSettings`], and the files that they name.
//!
//! It sends nothing. Invariant: a token is taken only from a file that its owner alone can read, never from
//! a command line, and it never prints itself.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderValue, Uri};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// A token file holds one token, or one for each replica of a committee.
const MAX_TOKEN_FILE_BYTES: u64 = 64 * 1024;

/// What every client command can be told; the default trusts the system's authorities and has no token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Certificates (PEM) that sign servers' certificates; the system's when absent.
    pub ca: Option<PathBuf>,
    /// A file with tokens: one line with a token for every server, or lines `https://HOST:PORT TOKEN`.
    pub token_file: Option<PathBuf>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientSettingsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others than its owner may read the tokens.
    #[error("others can read the token file {0}: chmod 600 {0}", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
    },
    /// A line of the token file is none.
    #[error("{}:{line}: expected a token, or an address such as https://10.0.0.1:8100 and a token", path.display())]
    TokenLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The token file holds no token.
    #[error("{} holds no token", .0.display())]
    NoToken(PathBuf),
    /// The file holds no certificate.
    #[error("{} holds no certificate in PEM form{}", path.display(), because(why))]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What the parser says, if anything.
        why: Option<String>,
    },
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
}

/// The tokens of a client, by server.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    /// For every server that has none of its own.
    for_all: Option<HeaderValue>,
    by_server: BTreeMap<String, HeaderValue>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Reads a token file.
    pub(super) fn read(path: &Path) -> Result<Self, ClientSettingsError> {
        let unreadable = |error| ClientSettingsError::Unreadable { path: path.to_owned(), error };
        let file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.mode() & 0o077 != 0 {
            return Err(ClientSettingsError::Readable { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(MAX_TOKEN_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        let mut credentials = Self::default();
        for (number, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                credentials.add(line).ok_or_else(|| ClientSettingsError::TokenLine {
                    path: path.to_owned(),
                    line: number + 1,
                })?;
            }
        }
        if credentials.for_all.is_none() && credentials.by_server.is_empty() {
            return Err(ClientSettingsError::NoToken(path.to_owned()));
        }
        Ok(credentials)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next()?, words.next());
        if words.next().is_some() {
            return None;
        }
        match second {
            None => self.for_all = Some(bearer(first)?),
            Some(token) => {
                let server = server(&first.parse().ok()?)?;
                self.by_server.insert(server, bearer(token)?);
            }
        }
        Some(())
    }

    /// The header that lets the client in at this address.
    pub(super) fn for_address(&self, address: &Uri) -> Option<&HeaderValue> {
        server(address).and_then(|server| self.by_server.get(&server)).or(self.for_all.as_ref())
    }
}

/// The characters of RFC 6750's `b64token`: an address that lost its token is none.
fn bearer(token: &str) -> Option<HeaderValue> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.contains("://") || !token.bytes().all(is_token) {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Scheme, host and port in one spelling.
fn server(address: &Uri) -> Option<String> {
    let scheme = address.scheme_str()?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = address.host()?.to_ascii_lowercase();
    Some(format!("{scheme}://{host}:{}", address.port_u16().unwrap_or(usual)))
}

/// The authorities of a file.
pub(super) fn authorities_of(path: &Path) -> Result<RootCertStore, ClientSettingsError> {
    let none = |why| ClientSettingsError::NoCertificate { path: path.to_owned(), why };
    let pem = std::fs::read(path)
        .map_err(|error| ClientSettingsError::Unreadable { path: path.to_owned(), error })?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| none(Some(error.to_string())))?;
        store.add(certificate).map_err(|error| none(Some(error.to_string())))?;
    }
    if store.is_empty() { Err(none(None)) } else { Ok(store) }
}

/// The system's authorities; none when there are none, and then no server is trusted.
pub(super) fn system_authorities() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

/// TLS 1.3 or 1.2, with the name checked against the certificate.
pub(super) fn tls(authorities: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::{ClientSettingsError, Credentials, authorities_of};

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("token");
        fs::write(&path, text).expect("the folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        (folder, path)
    }

    #[test]
    fn each_server_gets_its_own_token_and_the_others_the_common_one() {
        let (_folder, path) = file(
            "# ours\nhttps://Replica-0.example:8100 first\n\nhttps://[::1] second\nhttp://127.0.0.1:1 third\n",
            0o600,
        );
        let rows = [
            ("https://replica-0.example:8100/v1/heads", Some("Bearer first")),
            ("https://[::1]:443/", Some("Bearer second")),
            ("http://127.0.0.1:1/", Some("Bearer third")),
            ("https://127.0.0.1:1/", None),
            ("https://replica-0.example/", None),
        ];
        let told = Credentials::read(&path).expect("it is right");
        for (address, expected) in rows {
            let found = told.for_address(&address.parse().expect("an address"));
            assert_eq!(found.map(|value| value.to_str().expect("it is text")), expected, "{address}");
        }
        assert_eq!(format!("{told:?}"), "Credentials(..)");
        let (_folder, path) = file("common\nhttps://a:1 own\n", 0o400);
        let told = Credentials::read(&path).expect("it is right");
        let of = |address: &str| told.for_address(&address.parse().expect("an address")).cloned();
        assert_eq!(of("https://b:1/").expect("one for all"), "Bearer common");
        assert_eq!(of("https://a:1/").expect("its own"), "Bearer own");
    }

    #[test]
    fn what_is_no_token_file_is_refused_with_its_line() {
        let rows = [
            ("", 0o600, " holds no token"),
            ("\n# nothing\n", 0o600, " holds no token"),
            ("good\ntwo words here\n", 0o600, ":2: expected a token, or an address"),
            ("https://10.0.0.1:8100\n", 0o600, ":1: expected a token, or an address"),
            ("ftp://10.0.0.1 token\n", 0o600, ":1: expected a token, or an address"),
            ("to\u{e9}ken\n", 0o600, ":1: expected a token, or an address"),
            ("token\n", 0o640, ": chmod 600 "),
        ];
        for (text, mode, words) in rows {
            let (_folder, path) = file(text, mode);
            let error = Credentials::read(&path).expect_err(text).to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        let missing = Credentials::read(&PathBuf::from("/nowhere/token"));
        assert!(matches!(missing, Err(ClientSettingsError::Unreadable { .. })));
    }

    #[test]
    fn a_file_without_certificates_is_no_authority() {
        let (_folder, path) = file("no certificate\n", 0o644);
        let error = authorities_of(&path).expect_err("there is none").to_string();
        assert!(error.ends_with("holds no certificate in PEM form"), "{error}");
        let (_folder, path) = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644);
        let error = authorities_of(&path).expect_err("it is none").to_string();
        assert!(error.contains("holds no certificate in PEM form: "), "{error}");
    }
}
