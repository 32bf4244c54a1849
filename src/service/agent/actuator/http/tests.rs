//! Files that are refused, and what requests do to a server with recorded answers.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use axum::{Router, http::StatusCode, response::IntoResponse as _, routing::get};

use super::{
    super::{Actuator as _, ActuatorError, recorded::RecordedAirflow},
    Http, HttpFile,
};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        fixtures::{certified_plan, plan},
        plan::{DesiredState, Limits, Plan, Preconditions},
    },
    service::http_client::HttpClient,
};

/// A pool of Airflow, as somebody would describe it who has no actuator for it.
const POOL: &str = r#"
[secret.token]
file = "token"

[read]
method = "GET"
url = "SERVER/api/v2/pools/extract_pool"
headers = { authorization = "Bearer {secret.token}" }

[state]
slots = "/slots"

[set]
method = "PATCH"
url = "SERVER/api/v2/pools/extract_pool?update_mask=slots"
headers = { authorization = "Bearer {secret.token}" }
body = '{"pool": "extract_pool", "slots": {slots}, "include_deferred": false}'
expect = [200]
"#;

/// A DAG that changes the pool: the id of its run is the idempotency key.
const BY_RUN: &str = r#"
[secret.token]
file = "token"

[read]
method = "GET"
url = "SERVER/api/v2/pools/extract_pool"
headers = { authorization = "Bearer {secret.token}" }

[state]
slots = "/slots"

[set]
method = "POST"
url = "SERVER/api/v2/dags/set_slots/dagRuns"
headers = { authorization = "Bearer {secret.token}", idempotency-key = "{key}" }
body = '{"logical_date": null, "dag_run_id": "{key}", "conf": {"slots": {slots}, "why": "{target} plan {seq}"}}'
done = [409]
"#;

/// A switch by two requests.
const SWITCH: &str = r#"
[secret.token]
file = "token"

[read]
method = "GET"
url = "SERVER/api/v2/dags/flaky_ingest"
headers = { authorization = "Bearer {secret.token}" }

[state]
paused = "/is_paused"

[pause]
method = "PATCH"
url = "SERVER/api/v2/dags/flaky_ingest?update_mask=is_paused"
headers = { authorization = "Bearer {secret.token}" }
body = '{"is_paused": {paused}}'

[resume]
method = "PATCH"
url = "SERVER/api/v2/dags/flaky_ingest?update_mask=is_paused"
headers = { authorization = "Bearer {secret.token}" }
body = '{"is_paused": false}'
"#;

fn pause_plan() -> Plan {
    Plan {
        limits: Limits::Switch {},
        preconditions: Preconditions { state: DesiredState::Running {} },
        desired: DesiredState::Paused {},
        rollback: DesiredState::Running {},
        ..plan()
    }
}

fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    write_token(folder.path(), "token-1");
    folder
}

fn write_token(folder: &Path, token: &str) {
    let path = folder.join("token");
    std::fs::write(&path, token).expect("the folder is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn http(text: &str, server: &str, folder: &Path) -> Http {
    let file = HttpFile::parse("engine.toml", &text.replace("SERVER", server), folder);
    Http::new(file.unwrap_or_else(|error| panic!("{error}")), HttpClient::new())
}

#[tokio::test]
async fn a_pool_is_read_and_set_by_the_files_requests() {
    let (server, folder) = (RecordedAirflow::start().await, folder());
    let http = http(POOL, &server.url, folder.path());
    assert_eq!(http.read(&plan()).await.expect("it answers"), slots(3));
    http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(http.read(&plan()).await.expect("it answers"), slots(6));
    http.set(&certified_plan(&plan()), Aim::Rollback, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(http.read(&plan()).await.expect("it answers"), slots(3));
}

#[tokio::test]
async fn a_key_that_was_used_counts_as_done_and_the_way_back_and_the_next_attempt_have_others() {
    let (server, folder) = (RecordedAirflow::start().await, folder());
    let http = http(BY_RUN, &server.url, folder.path());
    for _ in 0..2 {
        http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("done now or before");
    }
    assert_eq!(server.engine().slots["extract_pool"], 6);
    assert_eq!(server.engine().runs.len(), 1, "the second request met a 409");
    http.set(&certified_plan(&plan()), Aim::Rollback, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(http.read(&plan()).await.expect("it answers"), slots(3));
    let digest = certified_plan(&plan()).digest();
    http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST.next()).await.expect("it takes it");
    assert_eq!(http.read(&plan()).await.expect("it answers"), slots(6), "it is made a second time");
    let keys = ["1-desired", "1-rollback", "2-desired"].map(|change| format!("{digest}-{change}"));
    assert_eq!(server.engine().runs, keys);
    let last = server.asked().into_iter().rfind(|asked| asked.starts_with("POST")).expect("it was asked");
    assert!(last.contains(&format!("{} plan 37", plan().target)), "{last}");
}

#[tokio::test]
async fn without_done_the_same_conflict_is_a_refusal() {
    let (server, folder) = (RecordedAirflow::start().await, folder());
    let http = http(&BY_RUN.replace("done = [409]", ""), &server.url, folder.path());
    http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("it is new");
    match http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await {
        Err(ActuatorError::EngineRefused { status: StatusCode::CONFLICT, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_switch_is_paused_and_resumed() {
    let (server, folder) = (RecordedAirflow::start().await, folder());
    let by_one = SWITCH.split("[resume]").next().expect("it begins").replace("[pause]", "[set]");
    for text in [SWITCH, &by_one] {
        let http = http(text, &server.url, folder.path());
        assert_eq!(http.read(&pause_plan()).await.expect("it answers"), DesiredState::Running {});
        http.set(&certified_plan(&pause_plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
        assert_eq!(http.read(&pause_plan()).await.expect("it answers"), DesiredState::Paused {});
        http.set(&certified_plan(&pause_plan()), Aim::Rollback, Attempt::FIRST).await.expect("it takes it");
        assert_eq!(http.read(&pause_plan()).await.expect("it answers"), DesiredState::Running {});
        let error = http.read(&plan()).await.expect_err("it is no pool").to_string();
        assert!(error.contains("a pool's slots") && error.contains("a switch ([state] paused)"), "{error}");
        http.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect_err("it is no pool");
    }
}

#[tokio::test]
async fn a_refused_token_is_told_without_the_token_and_the_file_is_read_anew() {
    let (server, folder) = (RecordedAirflow::start().await, folder());
    let http = http(POOL, &server.url, folder.path());
    server.engine().token = "token-2".to_owned();
    let error = http.read(&plan()).await.expect_err("the token is old").to_string();
    assert!(error.contains("401") && error.contains("Token Expired") && error.contains("next:"), "{error}");
    assert!(!error.contains("token-1"), "{error}");
    write_token(folder.path(), "token-2");
    assert_eq!(http.read(&plan()).await.expect("the token is new"), slots(3));
    std::fs::remove_file(folder.path().join("token")).expect("it is there");
    let error = http.read(&plan()).await.expect_err("there is no token").to_string();
    assert!(error.contains("cannot read the secret in"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_what_the_file_says_is_told() {
    let routes = Router::new().route(
        "/{answer}",
        get(|path: axum::extract::Path<String>| async move {
            match path.0.as_str() {
                "text" => "six".into_response(),
                "large" => "6".repeat(2000).into_response(),
                "never" => std::future::pending().await,
                "echo" => (StatusCode::FORBIDDEN, "token-1 may not do this\nat all").into_response(),
                other => format!(r#"{{"pool": {other}}}"#).into_response(),
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(axum::serve(listener, routes).into_future());
    let rows = [
        ("text", "the answer is no JSON"),
        ("large", "has more than 1000 bytes"),
        ("never", "did not answer within 50 ms"),
        ("echo", "403 Forbidden: (secret) may not do this at all; next:"),
        ("7", r#"has nothing at "/pool/slots""#),
        (r#"{"slots":-1}"#, r#"-1 at "/pool/slots" is no number of slots"#),
        (r#"{"slots":"6"}"#, r#""6" at "/pool/slots" is no number of slots"#),
        (r#"{"slots":6.5}"#, "is no number of slots"),
        (r#"{"slots":4294967296}"#, "is no number of slots"),
    ];
    let folder = folder();
    for (answer, message) in rows {
        let timeout = if answer == "never" { "50ms" } else { "60s" };
        let path = super::percent_encoded(answer);
        let text = POOL
            .replace(
                "GET\"\nurl = \"SERVER/api/v2/pools/extract_pool",
                &format!("GET\"\nurl = \"SERVER/{path}"),
            )
            .replace("\"/slots\"", "\"/pool/slots\"");
        let text = format!("timeout = \"{timeout}\"\nanswer_bytes = 1000\n{text}");
        let error = http(&text, &url, folder.path()).read(&plan()).await.expect_err(answer);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let told = format!("{error}: {cause}");
        assert!(told.contains(message), "{told}");
        assert!(!told.contains("token-1"), "{told}");
    }
    let switch = SWITCH
        .replace("SERVER/api/v2/dags/flaky_ingest\"", "SERVER/7\"")
        .replace("is_paused\"\n\n", "pool\"\n\n");
    let error = http(&switch, &url, folder.path()).read(&pause_plan()).await.expect_err("it says 7");
    assert!(error.to_string().contains("7 at \"/pool\" is neither true nor false"), "{error}");
}

#[test]
fn a_wrong_file_is_refused_with_line_and_column() {
    let folder = folder();
    let rows = [
        ("method = \"GET\"", "method = \"FETCH\"", "engine.toml:6:10: "),
        (
            "[read]\nmethod",
            "[read]\nmethd",
            "engine.toml:6:1: `methd` is not known here; did you mean `method`?",
        ),
        ("{slots},", "{slts},", "engine.toml:17:43: {slts} is not known here; did you mean {slots}?"),
        ("{slots},", "3,", "engine.toml:13:1: this request never says {slots}"),
        ("{slots},", "\"{slots},", "engine.toml:17:8: with its placeholders filled in, the body is no JSON"),
        (
            "Bearer {secret.token}\" }\n\n[state]",
            "{secret.tken}\" }\n\n[state]",
            "did you mean {secret.token}?",
        ),
        (
            "extract_pool\"\nheaders",
            "{slots}\"\nheaders",
            "engine.toml:7:31: {slots} has no value in this request",
        ),
        ("extract_pool\"\nheaders", "{secret.token}\"\nheaders", "the secret token may not stand in a URL"),
        ("https://h", "h", "is no http"),
        ("https://h", "http://h", "engine.toml:7:7: secrets are sent to another machine only over https://"),
        ("slots = \"/slots\"", "slots = \"slots\"", "it begins with `/`, such as \"/slots\""),
        ("slots = \"/slots\"", "", "[state] has either `slots`"),
        ("slots = \"/slots\"", "slots = \"/slots\"\npaused = \"/p\"", "[state] has either `slots`"),
        ("slots = \"/slots\"", "paused = \"/slots\"", "has no value in this request"),
        ("expect = [200]", "expect = [20]", "20 is no status of a final answer"),
        ("expect = [200]", "expect = [200]\ndone = [200]", "200 stands in `expect` and in `done`"),
        ("file = \"token\"", "file = \"missing\"", "cannot read the secret in"),
        (
            "file = \"token\"",
            "env = \"QUORATE_NO_SUCH_VARIABLE\"",
            "has no variable QUORATE_NO_SUCH_VARIABLE",
        ),
        ("file = \"token\"", "", "secret token has either `file` or `env`"),
        ("authorization = ", "\"not a name\" = ", "is no header name"),
        ("[set]", "[sett]", "did you mean `set`?"),
        ("[set]", "[pause]", "are for `paused`"),
        ("\n[secret", "timeout = \"0s\"\n[secret", "engine.toml:1:11: timeout is more than 0"),
        ("\n[secret", "timeout = 3\n[secret", "engine.toml:1:11: "),
        ("\n[secret", "answer_bytes = 0\n[secret", "engine.toml:1:16: answer_bytes is from 1 to"),
    ];
    let good = POOL.replace("SERVER", "https://h");
    HttpFile::parse("engine.toml", &good, folder.path()).expect("it is right");
    let mut other = Vec::new();
    for (from, to, message) in rows {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        let error = HttpFile::parse("engine.toml", &text, folder.path()).expect_err(to).to_string();
        if !(error.starts_with("engine.toml:") && error.contains(message)) {
            other.push(format!("{to}: {error}"));
        }
    }
    assert!(other.is_empty(), "{}", other.join("\n"));
    for right in [
        good.replace("https://h", "http://[::1]:80"),
        format!("in_clear = true\n{}", good.replace("https", "http")),
    ] {
        HttpFile::parse("engine.toml", &right, folder.path()).unwrap_or_else(|error| panic!("{error}"));
    }
    let missing = HttpFile::read(&folder.path().join("missing.toml")).expect_err("there is none").to_string();
    assert!(missing.contains("missing.toml: cannot be read"), "{missing}");
}
