//! What a development cluster consists of and where it listens, kept in its folder so that a second start
//! resumes it.
//!
//! Invariant: a folder is only ever used with the layout that it was made with.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The version of the folder's layout.
const VERSION: u32 = 1;

/// What was asked for on the command line; what is absent was left to the folder or the defaults.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// How many replicas.
    pub replicas: Option<u16>,
    /// The first of the replicas' ports.
    pub base_port: Option<u16>,
    /// The relay's port.
    pub otlp_port: Option<u16>,
    /// How many times faster than real time telemetry comes, as text.
    pub speed: Option<String>,
    /// A policy file.
    pub policy: Option<PathBuf>,
}

/// A cluster's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevPlan {
    version: u32,
    /// How many replicas.
    pub replicas: u16,
    /// The first of the replicas' ports; each takes two.
    pub base_port: u16,
    /// The relay's port.
    pub otlp_port: u16,
    /// How many times faster than real time telemetry comes.
    pub speed: String,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DevPlanError {
    /// It was made with something else.
    #[error(
        "{}: this cluster was made with {name} {made}, not {asked}; leave the flag out to resume it, or choose \
         another --data-dir", folder.display()
    )]
    MadeOtherwise {
        /// The folder.
        folder: PathBuf,
        /// The flag.
        name: &'static str,
        /// What the folder was made with.
        made: String,
        /// What was asked for.
        asked: String,
    },
    /// It was made by another version of the program.
    #[error("{}: made by another version of quorate; choose another --data-dir", folder.display())]
    OtherVersion {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There are not enough ports.
    #[error("--base-port {base_port}: {replicas} replicas need {} ports from there on", replicas * 2)]
    Ports {
        /// The first port.
        base_port: u16,
        /// How many replicas.
        replicas: u16,
    },
}

impl DevPlan {
    /// The folder's layout, or a new one from what was asked for; says whether the folder is new.
    ///
    /// # Errors
    /// [`DevPlanError`] when the folder was made otherwise.
    pub fn resolve(folder: &Path, asked: &Asked) -> Result<(Self, bool), DevPlanError> {
        let path = Self::file(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::fresh(asked).map(|plan| (plan, true));
            }
            Err(error) => return Err(DevPlanError::Io { path, error }),
        };
        let made: Self = serde_json::from_str(&text)
            .ok()
            .filter(|made: &Self| made.version == VERSION)
            .ok_or_else(|| DevPlanError::OtherVersion { folder: folder.to_owned() })?;
        let numbers = [
            ("--replicas", made.replicas, asked.replicas),
            ("--base-port", made.base_port, asked.base_port),
            ("--otlp-port", made.otlp_port, asked.otlp_port),
        ];
        let numbers = numbers
            .map(|(name, made, asked)| (name, made.to_string(), asked.map(|number| number.to_string())));
        let speed = ("--speed", made.speed.clone(), asked.speed.clone());
        for (name, made, asked) in numbers.into_iter().chain([speed]) {
            if let Some(asked) = asked
                && asked != made
            {
                return Err(DevPlanError::MadeOtherwise { folder: folder.to_owned(), name, made, asked });
            }
        }
        if let Some(policy) = &asked.policy {
            let (made, asked) = ("its own copy of a policy".to_owned(), policy.display().to_string());
            return Err(DevPlanError::MadeOtherwise {
                folder: folder.to_owned(),
                name: "--policy",
                made,
                asked,
            });
        }
        Ok((made, false))
    }

    fn fresh(asked: &Asked) -> Result<Self, DevPlanError> {
        let plan = Self {
            version: VERSION,
            replicas: asked.replicas.unwrap_or(4),
            base_port: asked.base_port.unwrap_or(7100),
            otlp_port: asked.otlp_port.unwrap_or(4318),
            speed: asked.speed.clone().unwrap_or_else(|| "1".to_owned()),
        };
        match plan.base_port.checked_add(plan.replicas.saturating_mul(2)) {
            Some(_) => Ok(plan),
            None => Err(DevPlanError::Ports { base_port: plan.base_port, replicas: plan.replicas }),
        }
    }

    /// Keeps the layout in its folder.
    ///
    /// # Errors
    /// [`DevPlanError::Io`].
    pub fn keep(&self, folder: &Path) -> Result<(), DevPlanError> {
        let path = Self::file(folder);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| fs::write(&path, text)).map_err(|error| DevPlanError::Io { path, error })
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join("dev.json")
    }

    /// Where other replicas reach a replica, and where its API listens.
    #[must_use]
    pub fn replica(&self, place: u16) -> (SocketAddr, SocketAddr) {
        let peer = self.base_port + 2 * place;
        (local(peer), local(peer + 1))
    }

    /// Where the relay listens.
    #[must_use]
    pub fn otlp(&self) -> SocketAddr {
        local(self.otlp_port)
    }

    /// Every address that must be free, with the flag that moves it.
    pub fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let replicas = (0..self.replicas).flat_map(|place| {
            let (peer, http) = self.replica(place);
            [(peer, "--base-port"), (http, "--base-port")]
        });
        replicas.chain([(self.otlp(), "--otlp-port")])
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::{Asked, DevPlan, DevPlanError};

    #[test]
    fn a_folder_keeps_the_layout_that_it_was_made_with() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let asked = Asked { replicas: Some(5), speed: Some("20".to_owned()), ..Asked::default() };
        let (made, fresh) = DevPlan::resolve(folder.path(), &asked).expect("a new folder");
        assert!(fresh && made.replicas == 5 && made.otlp_port == 4318);
        made.keep(folder.path()).expect("the folder is there");
        let again = DevPlan::resolve(folder.path(), &Asked::default()).expect("resumed");
        assert_eq!(again, (made, false));
        let other = Asked { replicas: Some(4), ..Asked::default() };
        let refused = DevPlan::resolve(folder.path(), &other).map_err(|error| error.to_string());
        let told = refused.expect_err("another number of replicas");
        assert!(told.contains("made with --replicas 5, not 4"), "{told}");
    }

    #[test]
    fn ports_must_fit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let asked = Asked { base_port: Some(65_530), ..Asked::default() };
        let refused = DevPlan::resolve(folder.path(), &asked);
        assert!(matches!(refused, Err(DevPlanError::Ports { .. })));
    }
}
