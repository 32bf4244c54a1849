//! Which of flag and file speaks, and what is refused.

use clap::Parser as _;
use std::path::{Path, PathBuf};

use super::{LogFormat, ReplicaConfig, ReplicaFlags};
use crate::service::config::{ConfigError, Place, REPLICA_EXAMPLE};

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: ReplicaFlags,
}

fn flags(line: &[&str]) -> ReplicaFlags {
    let line = std::iter::once("run").chain(line.iter().copied());
    Line::try_parse_from(line).expect("the flags are right").flags
}

/// Resolves the flags with a file of this text, in whose folder a secret lies.
fn resolve(text: &str, line: &[&str]) -> (PathBuf, Result<ReplicaConfig, ConfigError>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("replica.toml");
    std::fs::write(&file, text).expect("the folder is writable");
    std::fs::write(folder.path().join("database.url"), "postgres://user:secret@/one\n")
        .expect("the folder is writable");
    let mut flags = flags(line);
    flags.config = Some(file);
    (folder.path().to_owned(), ReplicaConfig::resolve(flags))
}

#[test]
fn the_example_is_complete_and_states_the_defaults() {
    let (folder, config) = resolve(REPLICA_EXAMPLE, &[]);
    let config = config.expect("it is valid");
    assert_eq!(config.data_dir, folder.join("data"));
    assert_eq!(config.genesis_file, folder.join("genesis.toml"));
    assert_eq!((config.peers.len(), config.log), (4, LogFormat::Text));
    let database = config.database.as_ref().expect("a database is named");
    assert_eq!(database.reveal(), "postgres://user:secret@/one");
    assert!(!format!("{config:?}").contains("secret"), "a password is never printed");
}

#[test]
fn a_flag_goes_before_the_file() {
    let line = [
        "--data-dir",
        "elsewhere",
        "--peers",
        "a:1,b:2",
        "--log",
        "json",
        "--database-url",
        "postgres:///other",
    ];
    let (folder, config) = resolve(REPLICA_EXAMPLE, &line);
    let config = config.expect("it is valid");
    assert_eq!(config.data_dir, Path::new("elsewhere"), "relative to the working folder");
    assert_eq!(config.key_file, folder.join("replica.key"), "relative to the file's");
    assert_eq!((config.peers, config.log), (vec!["a:1".to_owned(), "b:2".to_owned()], LogFormat::Json));
    assert_eq!(config.database.as_ref().map(super::DatabaseUrl::reveal), Some("postgres:///other"));
}

#[test]
fn what_is_missing_is_named_with_all_three_ways_to_give_it() {
    let without = REPLICA_EXAMPLE.replace("key_file = ", "# key_file = ");
    let (_, config) = resolve(&without, &[]);
    let error = config.expect_err("the key is missing");
    assert_eq!(
        error.message(),
        "key_file is not set: give --key-file, QUORATE_KEY_FILE, or key_file in the replica file"
    );
    let error = ReplicaConfig::resolve(flags(&["--peers", "a:1"])).expect_err("everything is missing");
    assert!(error.to_string().starts_with("command line: data_dir is not set"), "{error}");
}

/// Each row: a part of the example, what stands there instead, the place and words of the error.
#[test]
fn what_is_wrong_is_said_with_its_place() {
    let rows = [
        ("listen = ", "lisen = ", "`lisen` is not known here; did you mean `listen`?"),
        ("\"127.0.0.1:8100\"", "\"8100\"", "invalid socket address"),
        ("\"127.0.0.1:7101\"", "\"127.0.0.1\"", "peers: \"127.0.0.1\" is not HOST:PORT"),
        ("\"127.0.0.1:7101\"", "\"host:0\"", "peers: \"host:0\" is not HOST:PORT"),
        ("database_url_file", "database_url = \"postgres:///a\"\ndatabase_url_file", "not both"),
        ("log = \"text\"", "log = \"jsn\"", "`jsn` is not known here; did you mean `json`?"),
    ];
    for (part, instead, words) in rows {
        assert!(REPLICA_EXAMPLE.contains(part), "{part}");
        let text = REPLICA_EXAMPLE.replacen(part, instead, 1);
        let (_, config) = resolve(&text, &[]);
        let error = config.expect_err(instead);
        assert!(error.message().contains(words), "{instead}: {error}");
        let line =
            REPLICA_EXAMPLE[..REPLICA_EXAMPLE.find(part).expect("it is there")].matches('\n').count() + 1;
        assert_eq!(error.place().map(|Place { line, .. }| line), Some(line), "{instead}: {error}");
        assert_eq!(
            ReplicaConfig::check_text("replica.toml", &text).map_err(|e| e.place()),
            Err(error.place())
        );
    }
}

#[test]
fn a_database_that_is_not_postgres_is_refused_without_repeating_it() {
    let (_, config) = resolve(REPLICA_EXAMPLE, &["--database-url", "mysql://user:secret@host"]);
    let error = config.expect_err("it is not Postgres").to_string();
    assert_eq!(error, "database_url: must begin with postgres:// or postgresql://");
}

/// Each row: the entrance's keys, the flags, and the words of the error or nothing.
#[test]
fn an_address_beyond_this_machine_needs_a_certificate_and_tokens() {
    let tls = "tls = { certificate = \"tls.pem\", key = \"tls.key\" }\n";
    let tokens = "tokens = \"tokens.json\"\n";
    let both = format!("{tls}{tokens}");
    let rows: [(&str, &[&str], Option<&str>); 8] = [
        ("", &[], Some("there is neither a certificate nor a file of tokens")),
        (tls, &[], Some("there is no file of tokens")),
        (tokens, &[], Some("there is no certificate")),
        (&both, &[], None),
        (tls, &["--tokens", "t.json"], None),
        (tokens, &["--tls-certificate", "c.pem", "--tls-key", "c.key"], None),
        ("", &["--http", "127.0.0.1:1"], None),
        (tls, &["--http", "[::]:1"], Some("there is no file of tokens")),
    ];
    for (keys, line, words) in rows {
        let text = format!(
            "{keys}{}",
            REPLICA_EXAMPLE.replace("http = \"127.0.0.1:8100\"", "http = \"0.0.0.0:8100\"")
        );
        let (folder, config) = resolve(&text, line);
        match (config, words) {
            (Ok(config), None) if line.is_empty() => {
                let tls = config.entrance.tls.expect("it is configured");
                assert_eq!((tls.certificate, tls.key), (folder.join("tls.pem"), folder.join("tls.key")));
                assert_eq!(config.entrance.tokens, Some(folder.join("tokens.json")));
            }
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                assert!(error.message().contains(words), "{keys} {line:?}: {error}");
                let place = text.find("\"0.0.0.0:8100\"").expect("it is there");
                let expected = line.is_empty().then(|| text[..place].matches('\n').count() + 1);
                assert_eq!(error.place().map(|Place { line, .. }| line), expected, "{error}");
            }
            (config, words) => panic!("{keys} {line:?}: {config:?}, not {words:?}"),
        }
    }
    for (keys, words) in [
        ("tls = { certificate = \"c\" }\n", "missing field `key`"),
        ("tls = { certificate = \"c\", key = \"k\", ca = \"a\" }\n", "unknown field `ca`"),
        ("token = \"t\"\n", "did you mean `tokens`?"),
    ] {
        let (_, config) = resolve(&format!("{keys}{REPLICA_EXAMPLE}"), &[]);
        let error = config.expect_err(keys);
        assert!(error.message().contains(words), "{error}");
        assert_eq!(error.place().map(|Place { line, .. }| line), Some(1), "{error}");
    }
}
