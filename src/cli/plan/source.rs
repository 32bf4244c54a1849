//! Where an evidence bundle and the plan that it is compared with come from: files, or a replica.
//!
//! Invariant: a bundle from a replica is the one that the plan names, by its digest, or it is refused.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::super::{
    ClientFlags, ExitCode, Failure,
    evidence::{ask, read},
    output::Output,
    plans, wait_for,
};
use crate::{
    knowledge::plan::Plan,
    plan::{EvidenceBundle, MAX_BUNDLE_BYTES},
    types::{Cycle, Digest, Envelope, MAX_ENVELOPE_BYTES, from_strict_json},
};

/// The fewest digits that name a plan by its digest: any fewer might be a cycle's number or another plan.
const DIGEST_DIGITS_MIN: usize = 6;

/// A plan as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlanName {
    /// The beginning of its digest.
    Digest(String),
    /// The control cycle that it was derived in.
    Cycle(Cycle),
}

impl FromStr for PlanName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches("..");
        let is_digest = digits.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
        let number = text.parse().ok().filter(|_| text.len() < DIGEST_DIGITS_MIN);
        match number {
            Some(number) => Ok(Self::Cycle(Cycle::new(number))),
            None if is_digest && (DIGEST_DIGITS_MIN..=64).contains(&digits.len()) => {
                Ok(Self::Digest(digits.to_owned()))
            }
            None => Err(format!(
                "a plan is named by at least the first {DIGEST_DIGITS_MIN} hexadecimal digits of its digest, or by its control \
                 cycle's number of fewer digits"
            )),
        }
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digits) => write!(f, "with a digest that begins with {digits}"),
            Self::Cycle(cycle) => write!(f, "of the control cycle {cycle}"),
        }
    }
}

impl PlanName {
    pub(super) fn names(&self, plan: &Plan, digest: Digest) -> bool {
        match self {
            Self::Digest(digits) => digest.to_string().starts_with(digits),
            Self::Cycle(cycle) => plan.seq == *cycle,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Which plan: the beginning of its digest, or its control cycle's number
    #[arg(value_name = "PLAN", required_unless_present = "bundle")]
    name: Option<PlanName>,
    /// What it was derived from, as `quorate plan evidence` writes it: nobody is asked then
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The replica that is asked
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7101", conflicts_with = "bundle")]
    replica: String,
    #[command(flatten)]
    reach: ClientFlags,
}

/// A bundle, and which of the plans that follow from it is meant.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) bundle: EvidenceBundle,
    pub(super) name: Option<PlanName>,
    /// The body of the plan to compare with.
    pub(super) certified: Option<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Source {
    /// From the file, or from the replica.
    pub(super) fn get(self, plan: Option<&Path>) -> Result<Gathered, Failure> {
        let Some(path) = &self.bundle else {
            let mut fetched = None;
            wait_for(async {
                fetched = Some(fetch(&self).await?);
                Ok(ExitCode::Done)
            })?;
            return Ok(fetched.expect("it was fetched, or the failure was given back"));
        };
        let bytes = read(path, MAX_BUNDLE_BYTES)?;
        let bundle = EvidenceBundle::from_bytes(&bytes)
            .map_err(|error| Failure::refused(anyhow::anyhow!("{}: {error}", path.display())))?;
        let certified = plan.map(|path| {
            let envelope = Envelope::from_json(&read(path, MAX_ENVELOPE_BYTES)?)
                .map_err(|error| Failure::refused(anyhow::anyhow!("{}: {error}", path.display())))?;
            Ok::<_, Failure>(envelope.unverified_body().to_vec())
        });
        Ok(Gathered { bundle, name: self.name, certified: certified.transpose()?, bytes })
    }
}

impl Gathered {
    /// Keeps the bundle's bytes.
    pub(super) fn write(&self, path: &Path, output: Output) -> Result<ExitCode, Failure> {
        fs::write(path, &self.bytes).map_err(|error| {
            Failure::failed(anyhow::Error::new(error).context(format!("cannot write {}", path.display())))
        })?;
        output.say(format_args!(
            "{} bytes with the digest {} in {}",
            self.bytes.len(),
            self.bundle.digest(),
            path.display()
        ))?;
        Ok(ExitCode::Done)
    }
}

/// Asks a replica for a plan and for what it was derived from.
pub(super) async fn fetch(source: &Source) -> Result<Gathered, Failure> {
    let name = source
        .name
        .clone()
        .ok_or_else(|| Failure::usage(anyhow::anyhow!("which plan? Name one, or give --bundle FILE")))?;
    let client = source.reach.client(std::slice::from_ref(&source.replica))?;
    let url = source.replica.trim_end_matches('/');
    let served = plans::served(&client, url).await?;
    let mut meant = Vec::new();
    for envelope in served {
        let body = envelope.unverified_body();
        let plan: Plan = from_strict_json(body)
            .map_err(|error| Failure::failed(anyhow::anyhow!("{url} serves no plan: {error}")))?;
        if name.names(&plan, Digest::of(body)) {
            meant.push((plan, body.to_vec()));
        }
    }
    let (plan, body) = match meant.as_slice() {
        [one] => one,
        // Plans of one cycle have one bundle.
        [one, rest @ ..] if rest.iter().all(|(plan, _)| plan.evidence == one.0.evidence) => one,
        [] => {
            return Err(Failure::failed(anyhow::anyhow!("{url} serves no plan {name}"))
                .next("`quorate plans` lists those that it serves"));
        }
        [..] => {
            return Err(Failure::failed(anyhow::anyhow!("{url} serves {} plans {name}", meant.len()))
                .next("give more digits of the digest"));
        }
    };
    let bytes = ask(&client, &format!("{url}/v1/bundles/{}", plan.evidence), MAX_BUNDLE_BYTES).await?;
    if Digest::of(&bytes) != plan.evidence {
        let told = anyhow::anyhow!("{url} serves other bytes than those that the plan names as its evidence");
        return Err(Failure::refused(told).next("ask another replica, and look into this one"));
    }
    let bundle = EvidenceBundle::from_bytes(&bytes).map_err(Failure::refused)?;
    let certified = (meant.len() == 1).then(|| body.clone());
    Ok(Gathered { bundle, name: Some(name), certified, bytes })
}

#[cfg(test)]
mod tests {
    use super::PlanName;
    use crate::types::Cycle;

    #[test]
    fn a_plan_is_named_by_its_digest_or_its_cycle() {
        let digest = |digits: &str| Ok(PlanName::Digest(digits.to_owned()));
        let cases = [
            ("32", Ok(PlanName::Cycle(Cycle::new(32)))),
            ("99999", Ok(PlanName::Cycle(Cycle::new(99_999)))),
            ("de52591a", digest("de52591a")),
            ("de52591a..", digest("de52591a")),
            ("123456", digest("123456")),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<PlanName>(), expected, "{text}");
        }
        for wrong in ["", "abc", "DE52591A", "de52591g", "-3", &"a".repeat(65)] {
            assert!(wrong.parse::<PlanName>().is_err_and(|error| error.contains("first 6")), "{wrong}");
        }
    }
}
