//! What a development cluster consists of and where it listens, kept in its folder as `dev.json` so that a second
//! start resumes it.
//!
//! Invariant: what a cluster was founded with never changes; where it listens and which databases it uses may.

use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::database::DatabaseTemplate;
use crate::service::{durable::replace_file, founding::Layout};

/// The version of the folder: its layout and the formats of everything in it.
const VERSION: u32 = 2;

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
    /// The replicas' databases; a private Postgres without it.
    pub database: Option<DatabaseTemplate>,
}

/// Whose Postgres a cluster uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseKind {
    /// One of its own, in its folder.
    Private,
    /// One that runs without it; each replica's folder holds its URL.
    External,
}

/// A cluster's layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevPlan {
    version: u32,
    made_by: String,
    /// How many replicas.
    pub replicas: u16,
    /// The first of the replicas' ports; each takes two.
    pub base_port: u16,
    /// The relay's port.
    pub otlp_port: u16,
    /// How many times faster than real time telemetry comes.
    pub speed: String,
    /// Whose Postgres it uses.
    pub database: DatabaseKind,
    /// The policy file it is founded with; the default one when absent.
    pub policy: Option<PathBuf>,
}

/// What of a plan is the same in every version.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
    made_by: Option<String>,
}

/// A folder's plan, and how far its founding came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) plan: DevPlan,
    /// Whether there is a root: then the founding came to its end.
    pub(super) founded: bool,
}

/// Why a folder cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum DevPlanError {
    /// It was founded with something else.
    #[error(
        "{}: this cluster was founded with {name} {made}, not {asked}; leave the flag out to resume it, or choose \
         another --data-dir", folder.display()
    )]
    MadeOtherwise {
        /// The folder.
        folder: PathBuf,
        /// The flag.
        name: &'static str,
        /// What the folder was founded with.
        made: String,
        /// What was asked for.
        asked: String,
    },
    /// It was made by another version of the program.
    #[error(
        "{}: made by quorate {made_by} (folder version {made}); this is quorate {}, which reads version {VERSION} \
         only; choose another --data-dir, or delete this one if nothing in it is needed",
        folder.display(), env!("CARGO_PKG_VERSION")
    )]
    OtherVersion {
        /// The folder.
        folder: PathBuf,
        /// The folder's version.
        made: u32,
        /// The program that made it.
        made_by: String,
    },
    /// Its plan is not what this program writes.
    #[error(
        "{}: damaged: {why}; restore it from a copy, or choose another --data-dir", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It holds a cluster that `quorate dev` did not found.
    #[error(
        "{}: holds a cluster (root.json) that `quorate dev` did not found (no dev.json): `quorate run` starts its \
         replicas; choose another --data-dir", folder.display()
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// Replicas have signed there, and the root is gone.
    #[error(
        "{}: replicas have run here, but root.json is gone; restore it from a copy (each agent has one in its \
         `envelopes`), or choose another --data-dir", folder.display()
    )]
    RootLost {
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
    #[error(
        "--base-port {base_port}: {replicas} replicas need the {} ports from there on, and 65535 is the last; choose \
         at most {}", replicas * 2, 65_536 - u32::from(*replicas) * 2
    )]
    Ports {
        /// The first port.
        base_port: u16,
        /// How many replicas.
        replicas: u16,
    },
    /// The relay's port is one of the replicas'.
    #[error(
        "--otlp-port {otlp_port}: the replicas take the ports {base_port} to {last}; choose one outside, or another \
         --base-port"
    )]
    Overlap {
        /// The relay's port.
        otlp_port: u16,
        /// The replicas' first port.
        base_port: u16,
        /// The replicas' last port.
        last: u16,
    },
}

impl DevPlan {
    /// The folder's plan with what may be changed by flags, or a new one from what was asked for.
    ///
    /// # Errors
    /// [`DevPlanError`] when the folder was made otherwise, or is none of ours.
    pub(super) fn resolve(folder: &Path, asked: &Asked) -> Result<Resolved, DevPlanError> {
        let layout = Layout::of(folder.to_owned());
        let founded = layout.root().exists();
        let made = Self::read(folder)?;
        if founded && made.is_none() {
            return Err(DevPlanError::NotOurs { folder: folder.to_owned() });
        }
        if !founded && (0..u16::MAX).map_while(|place| some_replica(&layout, place)).any(has_signed) {
            return Err(DevPlanError::RootLost { folder: folder.to_owned() });
        }
        if let (true, Some(made)) = (founded, &made) {
            made.check_unchanged(folder, asked)?;
        }
        let plan = Self::merged(made, asked);
        plan.check_ports()?;
        Ok(Resolved { plan, founded })
    }

    fn read(folder: &Path) -> Result<Option<Self>, DevPlanError> {
        let path = Self::file(folder);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DevPlanError::Io { path, error }),
        };
        let damaged =
            |error: serde_json::Error| DevPlanError::Damaged { path: path.clone(), why: error.to_string() };
        let any: AnyVersion = serde_json::from_str(&text).map_err(damaged)?;
        if any.version != VERSION {
            return Err(DevPlanError::OtherVersion {
                folder: folder.to_owned(),
                made: any.version,
                made_by: any.made_by.unwrap_or_else(|| "of an earlier version".to_owned()),
            });
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// What the root and the genesis depend on stays as it was.
    fn check_unchanged(&self, folder: &Path, asked: &Asked) -> Result<(), DevPlanError> {
        let replicas = asked.replicas.map(|number| number.to_string());
        let policy = asked.policy.as_ref().map(|path| path.display().to_string());
        let own = self.policy.as_ref().map_or("the default policies".to_owned(), |path| {
            format!("{} (kept as genesis.toml)", path.display())
        });
        let kept = [
            ("--replicas", self.replicas.to_string(), replicas),
            ("--speed", self.speed.clone(), asked.speed.clone()),
            ("--policy", own, policy.filter(|_| asked.policy != self.policy)),
        ];
        for (name, made, asked) in kept {
            if let Some(asked) = asked.filter(|asked| *asked != made) {
                return Err(DevPlanError::MadeOtherwise { folder: folder.to_owned(), name, made, asked });
            }
        }
        Ok(())
    }

    fn merged(made: Option<Self>, asked: &Asked) -> Self {
        let made = made.unwrap_or_else(|| Self {
            version: VERSION,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            replicas: 4,
            base_port: 7100,
            otlp_port: 4318,
            speed: "1".to_owned(),
            database: DatabaseKind::Private,
            policy: None,
        });
        Self {
            replicas: asked.replicas.unwrap_or(made.replicas),
            base_port: asked.base_port.unwrap_or(made.base_port),
            otlp_port: asked.otlp_port.unwrap_or(made.otlp_port),
            speed: asked.speed.clone().unwrap_or(made.speed),
            database: asked.database.as_ref().map_or(made.database, |_| DatabaseKind::External),
            policy: asked.policy.clone().or(made.policy),
            ..made
        }
    }

    fn check_ports(&self) -> Result<(), DevPlanError> {
        let Self { replicas, base_port, otlp_port, .. } = *self;
        let last = base_port.checked_add(replicas.saturating_mul(2).saturating_sub(1));
        match last {
            None => Err(DevPlanError::Ports { base_port, replicas }),
            Some(last) if (base_port..=last).contains(&otlp_port) => {
                Err(DevPlanError::Overlap { otlp_port, base_port, last })
            }
            Some(_) => Ok(()),
        }
    }

    /// Keeps the plan in its folder.
    ///
    /// # Errors
    /// [`DevPlanError::Io`].
    pub(super) fn keep(&self, folder: &Path) -> Result<(), DevPlanError> {
        let path = Self::file(folder);
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        text.and_then(|text| replace_file(&path, &text)).map_err(|error| DevPlanError::Io { path, error })
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
    pub(super) fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &'static str)> {
        let replicas = (0..self.replicas).flat_map(|place| {
            let (peer, http) = self.replica(place);
            [(peer, "--base-port"), (http, "--base-port")]
        });
        replicas.chain([(self.otlp(), "--otlp-port")])
    }
}

fn some_replica(layout: &Layout, place: u16) -> Option<PathBuf> {
    Some(layout.replica(usize::from(place))).filter(|folder| folder.exists())
}

#[expect(clippy::needless_pass_by_value, reason = "it ends an iterator of owned paths")]
fn has_signed(replica: PathBuf) -> bool {
    replica.join("journal").exists()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::{Asked, DatabaseKind, DevPlan, DevPlanError, Resolved};
    use std::{fs, path::Path};

    fn resolve(folder: &Path, asked: &Asked) -> Result<Resolved, String> {
        DevPlan::resolve(folder, asked).map_err(|error| error.to_string())
    }

    #[test]
    fn a_founded_cluster_keeps_what_its_root_depends_on_and_moves_its_ports() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let asked = Asked { replicas: Some(5), speed: Some("20".to_owned()), ..Asked::default() };
        let made = resolve(folder.path(), &asked).expect("a new folder");
        assert!(!made.founded && made.plan.replicas == 5 && made.plan.otlp_port == 4318);
        made.plan.keep(folder.path()).expect("the folder is there");
        fs::write(folder.path().join("root.json"), "").expect("the folder is there");

        let again = resolve(folder.path(), &Asked::default()).expect("resumed");
        assert_eq!(again, Resolved { founded: true, ..made.clone() });
        let moved = resolve(folder.path(), &Asked { base_port: Some(9100), ..Asked::default() });
        assert_eq!(moved.expect("ports may change").plan, DevPlan { base_port: 9100, ..made.plan });
        let rows = [
            (Asked { replicas: Some(4), ..Asked::default() }, "founded with --replicas 5, not 4"),
            (Asked { speed: Some("1".to_owned()), ..Asked::default() }, "founded with --speed 20, not 1"),
            (
                Asked { policy: Some("my.toml".into()), ..Asked::default() },
                "founded with --policy the default policies, not my.toml",
            ),
        ];
        for (asked, words) in rows {
            let told = resolve(folder.path(), &asked).expect_err(words);
            assert!(told.contains(words) && told.contains("choose another --data-dir"), "{told}");
        }
    }

    #[test]
    fn a_founding_that_was_cut_off_is_done_again_with_the_same_flags_or_others() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let asked = Asked { replicas: Some(7), policy: Some("my.toml".into()), ..Asked::default() };
        let made = resolve(folder.path(), &asked).expect("a new folder").plan;
        made.keep(folder.path()).expect("the folder is there");
        let again = resolve(folder.path(), &Asked::default()).expect("not founded yet");
        assert_eq!(again, Resolved { plan: made, founded: false });
        let other = resolve(folder.path(), &Asked { replicas: Some(1), ..Asked::default() });
        assert_eq!(other.expect("nothing depends on it yet").plan.replicas, 1);
    }

    #[test]
    fn folders_of_others_are_refused_with_what_to_do() {
        let plan = r#"{"version":2,"made_by":"0.1.0","replicas":4,"base_port":7100,"otlp_port":4318,"speed":"1","database":"private","policy":null}"#;
        let old = r#"{"version":1,"replicas":4,"base_port":7100,"otlp_port":4318,"speed":"1"}"#;
        let newer = plan.replace(":2,", ":3,").replace("0.1.0", "9.9.9").replace("null", "null,\"more\":1");
        let rows: &[(&[(&str, &str)], &str)] = &[
            (&[("dev.json", old)], "quorate of an earlier version (folder version 1)"),
            (&[("dev.json", &newer)], "made by quorate 9.9.9 (folder version 3)"),
            (&[("dev.json", &plan[..30])], "dev.json: damaged: EOF"),
            (&[("dev.json", &plan.replace("speed", "sped"))], "dev.json: damaged: unknown field `sped`"),
            (&[("root.json", "")], "that `quorate dev` did not found (no dev.json)"),
            (&[("dev.json", plan), ("replicas/r0/journal", "")], "but root.json is gone; restore it"),
        ];
        for (files, words) in rows {
            let folder = tempfile::tempdir().expect("a temporary folder");
            for (name, text) in *files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("it is ours");
                fs::write(path, text).expect("it is ours");
            }
            let told = resolve(folder.path(), &Asked::default()).expect_err(words);
            assert!(told.contains(words) && told.contains("choose another --data-dir"), "{told}");
        }
    }

    #[test]
    fn ports_must_fit_and_not_meet() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refused = |base_port, otlp_port| {
            let asked = Asked { base_port: Some(base_port), otlp_port, ..Asked::default() };
            DevPlan::resolve(folder.path(), &asked)
        };
        let told = refused(65_530, None).expect_err("eight ports are needed").to_string();
        assert!(told.contains("choose at most 65528"), "{told}");
        assert!(refused(65_528, None).is_ok());
        assert!(matches!(refused(4311, None), Err(DevPlanError::Overlap { last: 4318, .. })));
        assert!(refused(4310, None).is_ok(), "the relay's port is the next one");
        assert!(matches!(refused(7100, Some(7107)), Err(DevPlanError::Overlap { .. })));
    }

    #[test]
    fn databases_of_ones_own_are_remembered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = "postgres://me@host/quorate_{replica}".parse().ok();
        let made = resolve(folder.path(), &Asked { database, ..Asked::default() }).expect("a new folder");
        made.plan.keep(folder.path()).expect("the folder is there");
        let again = resolve(folder.path(), &Asked::default()).expect("the folder is ours");
        assert_eq!(again.plan.database, DatabaseKind::External);
    }
}
