//! The flags by which every client command reaches servers: whom it trusts, and what lets it in.
//!
//! It asks nobody. Invariant: a token is named by its file; none is ever an argument, which everybody on the
//! machine could read.

use std::path::PathBuf;

use super::Failure;
use crate::service::http_client::{ClientSettings, HttpClient, HttpError};

/// Flags of every command that sends requests
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Reaching servers")]
pub struct ClientFlags {
    /// Certificates (PEM) that sign the servers' certificates [default: the system's authorities]
    #[arg(long, env = "QUORATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with the token that lets this command in, or with lines `https://HOST:PORT TOKEN`
    #[arg(long, env = "QUORATE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ClientFlags {
    /// A client with these settings, which may send requests to all these addresses.
    ///
    /// # Errors
    /// [`Failure`] with code 78 when a file cannot be used, and 2 when an address cannot.
    pub(in crate::cli) fn client(&self, addresses: &[String]) -> Result<HttpClient, Failure> {
        let settings = ClientSettings { ca: self.ca.clone(), token_file: self.token_file.clone() };
        let client = HttpClient::with(&settings).map_err(Failure::configuration)?;
        for address in addresses {
            client.check(address).map_err(|error: HttpError| Failure::usage(error))?;
        }
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::ClientFlags;
    use crate::cli::ExitCode;

    #[test]
    fn a_token_stays_on_this_machine_or_encrypted() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("token");
        fs::write(&path, "secret\n").expect("the folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let with_token = ClientFlags { ca: None, token_file: Some(path) };
        let without = ClientFlags::default();
        let code = |flags: &ClientFlags, address: &str| {
            flags.client(&[address.to_owned()]).map(drop).map_err(|failure| failure.code())
        };
        for address in ["http://127.0.0.1:1", "http://localhost:1/x", "http://[::1]:1", "https://10.0.0.1"] {
            assert_eq!(code(&with_token, address), Ok(()), "{address}");
        }
        for address in ["http://10.0.0.1:1", "http://replica.example", "http://localhost.example:1"] {
            assert_eq!(code(&with_token, address), Err(ExitCode::Usage), "{address}");
            assert_eq!(code(&without, address), Ok(()), "{address}");
        }
        let missing = ClientFlags { ca: Some(folder.path().join("ca.pem")), token_file: None };
        assert_eq!(code(&missing, "https://10.0.0.1"), Err(ExitCode::Configuration));
    }
}
