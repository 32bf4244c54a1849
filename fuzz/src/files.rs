//! What operators write: policy files and replicas' files.
//!
//! Invariant: a policy file that is taken can be written out again, and is the same genesis.

use quorate::{
    knowledge::genesis::Genesis,
    service::config::{Completion, PolicyFile, ReplicaConfig, policy_text},
};

use crate::world::WORLD;

/// A policy file's text.
pub fn policies(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = match PolicyFile::parse("fuzz.toml", text) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz.toml"), "an error names its file: {error}");
            return;
        }
    };
    drop(file.notes());
    let agent = WORLD.agents[0].public();
    let agents = file.targets().map(|target| (target.clone(), agent)).collect();
    let completion = Completion { agents, owner: Some("owner-0".to_owned()) };
    let Ok(genesis) = file.genesis(&completion) else { return };
    genesis.check().expect("a policy file that is taken makes a sound genesis");
    let again = PolicyFile::parse("again.toml", &policy_text(&genesis))
        .expect("a genesis is written as a correct file");
    assert_eq!(
        again.genesis(&completion).expect("it is complete"),
        genesis,
        "a genesis reads back as itself"
    );
    let bytes = borsh::to_vec(&genesis).expect("memory takes all");
    assert_eq!(borsh::from_slice::<Genesis>(&bytes).ok(), Some(genesis));
}

/// A replica's file.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = ReplicaConfig::check_text("fuzz.toml", text) {
        assert!(error.to_string().starts_with("fuzz.toml"), "an error names its file: {error}");
    }
}
