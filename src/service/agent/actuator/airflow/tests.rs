//! The actuator against answers that a real Airflow gave, and its traps.

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use axum::http::StatusCode;
use tempfile::TempDir;

use super::{
    super::{
        Actuator as _, ActuatorError, SecretSource,
        recorded::{Engine, PASSWORD, RecordedAirflow, USER},
    },
    Airflow, AirflowLogin, AirflowSettings, AirflowSettingsError, AirflowTarget,
};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        fixtures::{certified_plan, plan},
        plan::{DesiredState, Limits, Plan, Preconditions},
    },
    service::http_client::HttpClient,
    types::UnixMillis,
};

/// The plan of the fixtures: from 3 slots to 6.
fn slots_plan() -> Plan {
    plan()
}

fn pause_plan() -> Plan {
    Plan {
        limits: Limits::Switch {},
        preconditions: Preconditions { state: DesiredState::Running {} },
        desired: DesiredState::Paused {},
        rollback: DesiredState::Running {},
        ..plan()
    }
}

/// Every failure up to a time after the record was made, at most so many.
fn retry_plan(most: u32) -> Plan {
    let until = UnixMillis::new(4_000_000_000_000);
    let before = DesiredState::Retried { after: UnixMillis::ZERO, until: UnixMillis::new(1) };
    Plan {
        limits: Limits::Tasks { most, within: until.since(UnixMillis::new(1)) },
        preconditions: Preconditions { state: before },
        desired: DesiredState::Retried { after: UnixMillis::new(1), until },
        rollback: before,
        ..plan()
    }
}

fn secret(folder: &Path, text: &str) -> SecretSource {
    let path = folder.join("secret");
    std::fs::write(&path, text).expect("the folder is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    SecretSource::File(path)
}

fn settings(url: &str, target: AirflowTarget, password: SecretSource) -> AirflowSettings {
    AirflowSettings {
        url: url.to_owned(),
        in_clear: false,
        login: AirflowLogin::Password { user: USER.to_owned(), password },
        target,
        timeout: Duration::from_secs(60),
    }
}

fn pool(name: &str) -> AirflowTarget {
    AirflowTarget::Pool(name.to_owned())
}

fn dag(id: &str) -> AirflowTarget {
    AirflowTarget::Dag(id.to_owned())
}

/// An actuator for the target, its server, and the folder of its password.
async fn started(target: AirflowTarget) -> (Airflow, RecordedAirflow, TempDir) {
    let (server, folder) = (RecordedAirflow::start().await, tempfile::tempdir().expect("a folder"));
    let password = secret(folder.path(), PASSWORD);
    let airflow = Airflow::new(settings(&server.url, target, password), HttpClient::new());
    (airflow.expect("the settings are right"), server, folder)
}

fn slots(slots: u32) -> DesiredState {
    DesiredState::Slots { slots }
}

#[tokio::test]
async fn a_pool_gets_its_slots_by_the_calls_that_were_recorded() {
    let (airflow, server, _folder) = started(pool("extract_pool")).await;
    assert_eq!(airflow.read(&slots_plan()).await.expect("it answers"), slots(3));
    airflow.set(&certified_plan(&slots_plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(airflow.read(&slots_plan()).await.expect("it answers"), slots(6));
    assert_eq!(
        server.asked(),
        [
            "GET /api/v2/pools/extract_pool",
            "GET /api/v2/pools/extract_pool",
            r#"PATCH /api/v2/pools/extract_pool?update_mask=slots {"include_deferred":false,"pool":"extract_pool","slots":6}"#,
            "GET /api/v2/pools/extract_pool",
        ]
    );
    airflow.set(&certified_plan(&slots_plan()), Aim::Rollback, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(server.engine().slots["extract_pool"], 3);
    assert_eq!(server.engine().logins, 1);
}

#[tokio::test]
async fn a_pool_keeps_its_own_include_deferred() {
    let (airflow, server, _folder) = started(pool("extract_pool")).await;
    server.engine().include_deferred = true;
    airflow.set(&certified_plan(&slots_plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert!(server.asked().last().expect("it was asked").contains(r#""include_deferred":true"#));
    assert!(server.engine().include_deferred);
}

#[tokio::test]
async fn the_default_pool_takes_the_short_form() {
    let (airflow, server, _folder) = started(pool("default_pool")).await;
    airflow.set(&certified_plan(&slots_plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(server.asked(), [r#"PATCH /api/v2/pools/default_pool?update_mask=slots {"slots":6}"#]);
    assert_eq!(airflow.read(&slots_plan()).await.expect("it answers"), slots(6));
}

#[tokio::test]
async fn a_dag_is_paused_and_unpaused() {
    let (airflow, server, _folder) = started(dag("flaky_ingest")).await;
    assert_eq!(airflow.read(&pause_plan()).await.expect("it answers"), DesiredState::Running {});
    airflow.set(&certified_plan(&pause_plan()), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(airflow.read(&pause_plan()).await.expect("it answers"), DesiredState::Paused {});
    airflow.set(&certified_plan(&pause_plan()), Aim::Rollback, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(airflow.read(&pause_plan()).await.expect("it answers"), DesiredState::Running {});
    let patches: Vec<String> =
        server.asked().into_iter().filter(|asked| asked.starts_with("PATCH")).collect();
    assert_eq!(
        patches,
        [
            r#"PATCH /api/v2/dags/flaky_ingest?update_mask=is_paused {"is_paused":true}"#,
            r#"PATCH /api/v2/dags/flaky_ingest?update_mask=is_paused {"is_paused":false}"#,
        ]
    );
}

/// The requests to clear tasks since the last look: whether it is a dry run, the run, and the tasks.
fn clearings(asked: &[String]) -> Vec<(bool, String, String)> {
    let clearing = |asked: &String| {
        let body = asked.strip_prefix("POST /api/v2/dags/flaky_ingest/clearTaskInstances ")?;
        let body: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
        assert_eq!((&body["only_failed"], &body["reset_dag_runs"]), (&true.into(), &true.into()), "{body}");
        assert_eq!(body["include_downstream"] == true, body["dry_run"] == true, "{body}");
        let text = |field: &str| body[field].to_string().replace('"', "");
        Some((body["dry_run"] == true, text("dag_run_id"), text("task_ids")))
    };
    asked.iter().filter_map(clearing).collect()
}

#[tokio::test]
async fn failed_tasks_are_cleared_run_by_run_as_a_dry_run_named_them_and_nothing_takes_that_back() {
    let (airflow, server, _folder) = started(AirflowTarget::FailedTasks("flaky_ingest".to_owned())).await;
    let plan = retry_plan(4);
    assert_eq!(airflow.read(&plan).await.expect("it answers"), plan.preconditions.state);
    airflow.set(&certified_plan(&plan), Aim::Desired, Attempt::FIRST).await.expect("it takes it");
    assert_eq!(airflow.read(&plan).await.expect("it answers"), plan.desired);
    let asked = server.asked();
    assert_eq!(
        asked[0],
        "GET /api/v2/dags/flaky_ingest/dagRuns/~/taskInstances?end_date_gt=1970-01-01T00:00:00.001Z\
         &end_date_lte=2096-10-02T07:06:40.000Z&limit=100&order_by=end_date&state=failed"
    );
    let row = |is_dry, run: &str, tasks: &str| (is_dry, run.to_owned(), tasks.to_owned());
    assert_eq!(
        clearings(&asked),
        [
            row(true, "manual__one", "[fetch]"),
            row(true, "manual__two", "[fetch]"),
            row(false, "manual__one", "[fetch,store]"),
            row(false, "manual__two", "[fetch,store]"),
        ]
    );
    airflow
        .set(&certified_plan(&plan), Aim::Desired, Attempt::FIRST)
        .await
        .expect("once more clears nothing more");
    airflow.set(&certified_plan(&plan), Aim::Rollback, Attempt::FIRST).await.expect("there is nothing to do");
    assert!(server.asked().iter().all(|asked| asked.starts_with("GET")));
}

#[tokio::test]
async fn what_failed_in_the_same_run_before_the_plans_span_is_left_as_it_is() {
    let (airflow, server, _folder) = started(AirflowTarget::FailedTasks("flaky_ingest".to_owned())).await;
    server.engine().failed = vec!["manual__one"];
    server.engine().older = vec!["manual__one"];
    let after = UnixMillis::new(1_790_000_000_000);
    let DesiredState::Retried { until, .. } = retry_plan(2).desired else { panic!("it is a retry") };
    let plan = Plan { desired: DesiredState::Retried { after, until }, ..retry_plan(2) };
    airflow.set(&certified_plan(&plan), Aim::Desired, Attempt::FIRST).await.expect("there are two");
    assert_eq!(server.engine().failed, Vec::<&str>::new());
    assert_eq!(server.engine().older, ["manual__one"]);
    let row = |is_dry, tasks: &str| (is_dry, "manual__one".to_owned(), tasks.to_owned());
    assert_eq!(clearings(&server.asked()), [row(true, "[fetch]"), row(false, "[fetch,store]")]);
}

#[tokio::test]
async fn more_tasks_than_the_plan_allows_and_failures_of_another_time_are_left_alone() {
    let (airflow, server, _folder) = started(AirflowTarget::FailedTasks("flaky_ingest".to_owned())).await;
    // Two have failed, in two runs; with what waits for them there are four.
    for (most, told) in
        [(1, "2 is more than the 1"), (2, "4 is more than the 2"), (3, "4 is more than the 3")]
    {
        let plan = certified_plan(&retry_plan(most));
        let error = airflow.set(&plan, Aim::Desired, Attempt::FIRST).await.expect_err(told).to_string();
        assert!(error.contains(&format!("{told} that the plan allows; next:")), "{error}");
        assert!(clearings(&server.asked()).iter().all(|(is_dry, ..)| *is_dry), "most {most}");
    }
    assert_eq!(server.engine().failed.len(), 2);
    let (after, until) = (UnixMillis::new(1), UnixMillis::new(1_000_000_000_000));
    let early = Plan { desired: DesiredState::Retried { after, until }, ..retry_plan(20) };
    assert_eq!(airflow.read(&early).await.expect("it answers"), early.desired);
    airflow.set(&certified_plan(&early), Aim::Desired, Attempt::FIRST).await.expect("there is nothing to do");
    assert_eq!(server.engine().failed.len(), 2);
    airflow.read(&pause_plan()).await.expect_err("these are no switch");
}

#[tokio::test]
async fn a_retry_that_fails_halfway_says_how_many_tasks_run_again() {
    let told = async |change: &dyn Fn(&mut Engine)| {
        let (airflow, server, _folder) = started(AirflowTarget::FailedTasks("flaky_ingest".to_owned())).await;
        change(&mut server.engine());
        let plan = retry_plan(4);
        let error =
            airflow.set(&certified_plan(&plan), Aim::Desired, Attempt::FIRST).await.expect_err("it fails");
        let reads = airflow.read(&plan).await.expect("it answers");
        change(&mut server.engine());
        let left = server.engine().failed.len();
        (error, reads == plan.desired, left)
    };
    let (error, is_done, left) = told(&|engine| engine.refuses_run = Some("manual__two")).await;
    assert!(matches!(error, ActuatorError::Halfway { done: 1, of: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("1 of 2 failed tasks run again"), "{error}");
    assert_eq!((is_done, left), (false, 1));
    // Runs are cleared in the order of their names, so here nothing was done before.
    let (error, is_done, left) = told(&|engine| engine.refuses_run = Some("manual__one")).await;
    assert!(matches!(error, ActuatorError::EngineRefused { .. }), "{error:?}");
    assert_eq!((is_done, left), (false, 2));
    // What was carried out without an answer counts.
    let (error, is_done, left) = told(&|engine| engine.loses_answer_of = Some("manual__one")).await;
    assert!(matches!(error, ActuatorError::Halfway { done: 1, of: 2, .. }), "{error:?}");
    assert_eq!((is_done, left), (false, 1));
    let (error, is_done, left) = told(&|engine| engine.loses_answer_of = Some("manual__two")).await;
    assert!(matches!(error, ActuatorError::Halfway { done: 2, of: 2, .. }), "{error:?}");
    assert_eq!((is_done, left), (true, 0));
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_renewed_once() {
    for refusal in ["token_expired", "token_invalid"] {
        let (airflow, server, _folder) = started(pool("extract_pool")).await;
        airflow.read(&slots_plan()).await.expect("it answers");
        server.engine().token = "token-2".to_owned();
        server.engine().other_token = refusal;
        assert_eq!(airflow.read(&slots_plan()).await.expect("it answers"), slots(3), "{refusal}");
        assert_eq!(server.engine().logins, 2);
        airflow.read(&slots_plan()).await.expect("it answers");
        assert_eq!(server.engine().logins, 2, "the new token is kept");
    }
}

#[tokio::test]
async fn a_token_from_a_file_is_read_again_when_it_is_refused() {
    let (server, folder) = (RecordedAirflow::start().await, tempfile::tempdir().expect("a folder"));
    let token = secret(folder.path(), "token-1");
    let settings = AirflowSettings {
        login: AirflowLogin::Token(token.clone()),
        ..settings(&server.url, pool("extract_pool"), token)
    };
    let airflow = Airflow::new(settings, HttpClient::new()).expect("the settings are right");
    airflow.read(&slots_plan()).await.expect("the token is right");
    server.engine().token = "token-2".to_owned();
    match airflow.read(&slots_plan()).await {
        Err(ActuatorError::EngineRefused { status: StatusCode::UNAUTHORIZED, said, .. }) => {
            assert!(said.contains("Token Expired"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    secret(folder.path(), "token-2");
    assert_eq!(airflow.read(&slots_plan()).await.expect("the token is new"), slots(3));
    assert_eq!(server.engine().logins, 0);
}

#[tokio::test]
async fn what_airflow_refuses_is_told_with_what_to_do_and_changes_nothing() {
    let (server, folder) = (RecordedAirflow::start().await, tempfile::tempdir().expect("a folder"));
    let right = secret(folder.path(), PASSWORD);
    let actuator = |target, password: &SecretSource| {
        Airflow::new(settings(&server.url, target, password.clone()), HttpClient::new())
            .expect("they are right")
    };
    let rows = [
        (pool("none"), slots_plan(), "read pool none of Airflow", "The Pool with name: `"),
        (dag("none"), pause_plan(), "read DAG none of Airflow", "The Dag with ID: `none` was not found"),
        (
            pool("extract_pool"),
            pause_plan(),
            "a switch that is paused or running",
            "pool extract_pool of Airflow",
        ),
        (dag("flaky_ingest"), slots_plan(), "a pool's slots", "DAG flaky_ingest of Airflow"),
    ];
    for (target, plan, doing, said) in rows {
        let airflow = actuator(target, &right);
        let error = airflow.read(&plan).await.expect_err("it is refused").to_string();
        assert!(error.contains(doing) && error.contains(said), "{error}");
        airflow.set(&certified_plan(&plan), Aim::Desired, Attempt::FIRST).await.expect_err("it is refused");
    }
    server.engine().slots.insert("extract_pool", -1);
    let unlimited = actuator(pool("extract_pool"), &right).read(&slots_plan()).await;
    let error = unlimited.expect_err("-1 is no number of slots").to_string();
    assert!(error.contains("-1 slots, which means no limit; next:"), "{error}");
    actuator(pool("extract_pool"), &right)
        .set(&certified_plan(&slots_plan()), Aim::Desired, Attempt::FIRST)
        .await
        .expect_err("no limit is not replaced by one");

    let wrong = secret(folder.path(), "wrong");
    let error = actuator(pool("extract_pool"), &wrong).check().await.expect_err("the password is wrong");
    let error = error.to_string();
    assert!(error.contains("log in as admin") && error.contains("Invalid credentials"), "{error}");
    assert!(error.contains("next: are the user, the password"), "{error}");
    assert_eq!(server.engine().slots["extract_pool"], -1);
    assert!(!server.engine().is_paused);
}

#[tokio::test]
async fn an_airflow_that_is_away_or_something_else_is_told_so() {
    let (airflow, server, _folder) = started(pool("extract_pool")).await;
    server.engine().broken = Some(StatusCode::BAD_GATEWAY);
    let error = airflow.read(&slots_plan()).await.expect_err("it is away").to_string();
    assert!(error.contains("502 Bad Gateway: upstream is away; next: wait"), "{error}");
    server.engine().broken = Some(StatusCode::OK);
    let error = airflow.read(&slots_plan()).await.expect_err("this is no Airflow").to_string();
    assert!(error.contains("not what Airflow 3 says") && error.contains("upstream is away"), "{error}");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(&closed, pool("extract_pool"), secret(folder.path(), PASSWORD));
    let airflow = Airflow::new(settings, HttpClient::new()).expect("the settings are right");
    match airflow.check().await {
        Err(ActuatorError::NoAnswer { doing, .. }) => assert!(doing.contains(&closed), "{doing}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_cannot_be_right_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = secret(folder.path(), PASSWORD);
    let new = |url: &str, target, password: &SecretSource| {
        Airflow::new(settings(url, target, password.clone()), HttpClient::new())
    };
    for url in ["", "localhost:8080", "ftp://localhost", "http://"] {
        let refused = new(url, pool("extract_pool"), &password);
        assert!(matches!(refused, Err(AirflowSettingsError::Address(_))), "{url}: {refused:?}");
    }
    let refused = new("http://airflow.example:8080", pool("extract_pool"), &password);
    assert!(matches!(refused, Err(AirflowSettingsError::InClear(_))), "{refused:?}");
    let trusted = settings("http://airflow.example:8080", pool("extract_pool"), password.clone());
    let trusted = AirflowSettings { in_clear: true, ..trusted };
    assert!(Airflow::new(trusted, HttpClient::new()).is_ok());
    assert!(new("https://airflow.example", pool("extract_pool"), &password).is_ok());
    // A tilde in the path would pause every DAG.
    for name in ["", "~", &"x".repeat(257)] {
        let refused = new("http://localhost:8080/", dag(name), &password);
        assert!(matches!(refused, Err(AirflowSettingsError::Name(_))), "{name}: {refused:?}");
    }
    let missing = SecretSource::File(folder.path().join("missing"));
    let refused = new("http://localhost:8080", pool("extract_pool"), &missing);
    assert!(matches!(refused, Err(AirflowSettingsError::Secret(_))), "{refused:?}");
    assert!(new("http://localhost:8080/team/", pool("extract_pool"), &password).is_ok());
}
