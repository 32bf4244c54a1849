//! An HTTP server that answers as a real Airflow did, from the answers in `tests/data/airflow-answers.jsonl.gz`.
//!
//! It is no Airflow: it knows two pools, one DAG and its failed tasks, and keeps what is changed. Invariant: every
//! body that it sends was recorded, with at most the changed field replaced, and it enforces the traps that were
//! recorded: tokens, the fields that a pool's PATCH needs, `dry_run`, ids that are there already.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

/// The user that may log in, and the password.
pub(crate) const USER: &str = "admin";
pub(crate) const PASSWORD: &str = "(password)";

/// What the server is asked to be, and what was asked of it.
#[derive(Debug)]
pub(crate) struct Engine {
    /// The token that it takes; a login gives it.
    pub(crate) token: String,
    /// What it says to another token: a recorded exchange's name.
    pub(crate) other_token: &'static str,
    pub(crate) slots: BTreeMap<&'static str, i64>,
    pub(crate) include_deferred: bool,
    pub(crate) is_paused: bool,
    /// DAG runs whose task `fetch` failed, so that `store` waits for it.
    pub(crate) failed: Vec<&'static str>,
    /// DAG runs in which a task `older` failed long before.
    pub(crate) older: Vec<&'static str>,
    pub(crate) runs: Vec<String>,
    /// Every request as `METHOD /path?query body`, without logins.
    pub(crate) asked: Vec<String>,
    pub(crate) logins: usize,
    /// Answers 500 to clearing tasks of this run, and leaves them as they are.
    pub(crate) refuses_run: Option<&'static str>,
    /// Clears the tasks of this run and answers 504 all the same.
    pub(crate) loses_answer_of: Option<&'static str>,
    /// Answers this status to whatever would change it.
    pub(crate) refuses_changes: Option<StatusCode>,
    /// Answers nothing but this status from now on.
    pub(crate) broken: Option<StatusCode>,
}

/// A running server; it ends with the runtime.
#[derive(Clone, Debug)]
pub(crate) struct RecordedAirflow {
    pub(crate) url: String,
    engine: Arc<Mutex<Engine>>,
    answers: Arc<BTreeMap<String, (StatusCode, Value)>>,
}

impl RecordedAirflow {
    /// Starts with the pool `extract_pool` of 3 slots, and the DAG `flaky_ingest` running with two failed runs.
    pub(crate) async fn start() -> Self {
        let engine = Engine {
            token: "token-1".to_owned(),
            other_token: "token_expired",
            slots: [("extract_pool", 3), ("default_pool", 128)].into(),
            include_deferred: false,
            is_paused: false,
            failed: vec!["manual__one", "manual__two"],
            older: Vec::new(),
            runs: Vec::new(),
            asked: Vec::new(),
            logins: 0,
            refuses_run: None,
            loses_answer_of: None,
            refuses_changes: None,
            broken: None,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server =
            Self { url, engine: Arc::new(Mutex::new(engine)), answers: Arc::new(recorded_answers()) };
        let routes = Router::new()
            .route("/auth/token", post(log_in))
            .route("/api/v2/pools/{name}", any(pool))
            .route("/api/v2/dags/{id}", any(dag))
            .route("/api/v2/dags/{id}/dagRuns", post(new_run))
            .route("/api/v2/dags/{id}/dagRuns/~/taskInstances", get(tasks))
            .route("/api/v2/dags/{id}/clearTaskInstances", post(clear))
            .with_state(server.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        server
    }

    /// What it is and was asked, to look at or to change.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests since the last look.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.engine().asked)
    }

    fn answer(&self, name: &str) -> Response {
        self.answer_with(name, |_| {})
    }

    fn answer_with(&self, name: &str, change: impl FnOnce(&mut Value)) -> Response {
        let (status, body) = self.answers.get(name).unwrap_or_else(|| panic!("no recorded answer {name}"));
        let mut body = body.clone();
        change(&mut body);
        (*status, Json(body)).into_response()
    }

    /// Notes a request; the refusal when it is not authenticated.
    fn admit(&self, headers: &HeaderMap, request: String) -> Option<Response> {
        let mut engine = self.engine();
        let changes = !request.starts_with("GET");
        engine.asked.push(request);
        if let Some(status) = engine.broken {
            return Some((status, "upstream is away").into_response());
        }
        if let Some(status) = engine.refuses_changes.filter(|_| changes) {
            return Some((status, Json(json!({ "detail": "Forbidden" }))).into_response());
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let refusal = match given {
            None => "no_token",
            Some(given) if given == format!("Bearer {}", engine.token) => return None,
            Some(_) => engine.other_token,
        };
        drop(engine);
        Some(self.answer(refusal))
    }
}

/// The recorded exchanges by name.
fn recorded_answers() -> BTreeMap<String, (StatusCode, Value)> {
    let packed = include_bytes!("../data/airflow-answers.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("it is gzip");
    let exchanges = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    // The first line says where the others come from.
    let answers = exchanges.skip(1).map(|exchange| {
        let status = exchange["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let status = StatusCode::from_u16(status.expect("it is a number")).expect("it is a status");
        let body =
            serde_json::from_str(exchange["answer"].as_str().expect("it is text")).expect("it is JSON");
        (exchange["name"].as_str().expect("it has a name").to_owned(), (status, body))
    });
    answers.collect()
}

fn shown(method: &Method, path: &str, query: &BTreeMap<String, String>, body: Option<&Value>) -> String {
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let body = body.map_or_else(String::new, |body| format!(" {body}"));
    format!("{method} {path}{query}{body}")
}

async fn log_in(State(server): State<RecordedAirflow>, Json(body): Json<Value>) -> Response {
    server.engine().logins += 1;
    if let Some(status) = server.engine().broken {
        return (status, "upstream is away").into_response();
    }
    if body != json!({ "username": USER, "password": PASSWORD }) {
        return server.answer("token_wrong_password");
    }
    let token = server.engine().token.clone();
    server.answer_with("token", |answer| answer["access_token"] = token.into())
}

async fn pool(
    State(server): State<RecordedAirflow>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
    headers: HeaderMap,
    body: Option<Json<Value>>,
) -> Response {
    let body = body.map(|Json(body)| body);
    let path = format!("/api/v2/pools/{name}");
    if let Some(refusal) = server.admit(&headers, shown(&method, &path, &query, body.as_ref())) {
        return refusal;
    }
    let engine = server.engine();
    let (known, include_deferred) = (engine.slots.get(name.as_str()).copied(), engine.include_deferred);
    drop(engine);
    let is_default = name == "default_pool";
    let Some(slots) = known else {
        return server.answer(if method == Method::GET { "pool_missing" } else { "pool_patch_missing" });
    };
    let Some(body) = body else {
        return server.answer_with(if is_default { "default_pool" } else { "pool" }, |answer| {
            answer["slots"] = slots.into();
            answer["include_deferred"] = include_deferred.into();
        });
    };
    if !is_default {
        match (body.get("pool"), body.get("include_deferred")) {
            (Some(_), Some(_)) => {}
            (None, None) => return server.answer("pool_patch_slots_alone"),
            (Some(_), None) => return server.answer("pool_patch_without_include_deferred"),
            (None, Some(_)) => return server.answer("pool_patch_without_pool"),
        }
    }
    let slots = body["slots"].as_i64().expect("it is a number");
    if slots < -1 {
        return server.answer("pool_patch_below_minus_one");
    }
    let mut engine = server.engine();
    *engine.slots.get_mut(name.as_str()).expect("it is known") = slots;
    if query.get("update_mask").is_none_or(|mask| mask.contains("include_deferred"))
        && let Some(given) = body["include_deferred"].as_bool()
    {
        engine.include_deferred = given;
    }
    drop(engine);
    let recorded = if is_default { "default_pool_patch_slots_alone" } else { "pool_patch" };
    server.answer_with(recorded, |answer| answer["slots"] = slots.into())
}

async fn dag(
    State(server): State<RecordedAirflow>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    method: Method,
    headers: HeaderMap,
    body: Option<Json<Value>>,
) -> Response {
    let body = body.map(|Json(body)| body);
    let path = format!("/api/v2/dags/{id}");
    if let Some(refusal) = server.admit(&headers, shown(&method, &path, &query, body.as_ref())) {
        return refusal;
    }
    if id != "flaky_ingest" {
        return server.answer(if method == Method::GET { "dag_missing" } else { "dag_patch_missing" });
    }
    match body {
        None => server.answer(if server.engine().is_paused { "dag_paused" } else { "dag" }),
        Some(body) => match body["is_paused"].as_bool() {
            None => server.answer("dag_patch_other_field"),
            Some(is_paused) => {
                server.engine().is_paused = is_paused;
                server.answer(if is_paused { "dag_patch_pause" } else { "dag_patch_unpause" })
            }
        },
    }
}

async fn new_run(
    State(server): State<RecordedAirflow>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let path = format!("/api/v2/dags/{id}/dagRuns");
    let request = shown(&Method::POST, &path, &BTreeMap::new(), Some(&body));
    if let Some(refusal) = server.admit(&headers, request) {
        return refusal;
    }
    if body.get("logical_date").is_none() {
        return server.answer("run_without_logical_date");
    }
    let run = body["dag_run_id"].as_str().expect("it has an id").to_owned();
    if server.engine().runs.contains(&run) {
        return server.answer("run_again");
    }
    // What the run does to the engine: it gives the pool the slots of its configuration.
    if let Some(slots) = body["conf"]["slots"].as_i64() {
        server.engine().slots.insert("extract_pool", slots);
    }
    server.engine().runs.push(run);
    server.answer("run")
}

async fn tasks(
    State(server): State<RecordedAirflow>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let path = format!("/api/v2/dags/{id}/dagRuns/~/taskInstances");
    if let Some(refusal) = server.admit(&headers, shown(&Method::GET, &path, &query, None)) {
        return refusal;
    }
    if id != "flaky_ingest" {
        return server.answer("failed_dag_missing");
    }
    assert_eq!(query.get("state").map(String::as_str), Some("failed"), "{query:?}");
    let engine = server.engine();
    let (failed, older) = (engine.failed.clone(), engine.older.clone());
    drop(engine);
    // Times of one form are in the order of their texts.
    let is_in = |task: &Value| {
        let ended = task["end_date"].as_str().unwrap_or_default();
        let runs = if task["task_id"] == "older" { &older } else { &failed };
        runs.iter().any(|run| task["dag_run_id"] == *run)
            && query.get("end_date_gt").is_none_or(|from| ended > from.as_str())
            && query.get("end_date_lte").is_none_or(|to| ended <= to.as_str())
    };
    server.answer_with("failed", |answer| {
        let tasks = answer["task_instances"].as_array_mut().expect("it is a list");
        let older = tasks.iter().map(|task| {
            let mut task = task.clone();
            task["task_id"] = "older".into();
            task["end_date"] = "2025-11-20T12:00:00.000000Z".into();
            task
        });
        let older: Vec<Value> = older.collect();
        tasks.extend(older);
        tasks.retain(is_in);
        let total = tasks.len();
        tasks.truncate(query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(50));
        answer["total_entries"] = total.into();
    })
}

async fn clear(
    State(server): State<RecordedAirflow>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let path = format!("/api/v2/dags/{id}/clearTaskInstances");
    let request = shown(&Method::POST, &path, &BTreeMap::new(), Some(&body));
    if let Some(refusal) = server.admit(&headers, request) {
        return refusal;
    }
    if id != "flaky_ingest" {
        return server.answer("clear_dag_missing");
    }
    let run = body["dag_run_id"].as_str().unwrap_or_default();
    if !["manual__one", "manual__two"].contains(&run) {
        return server.answer("clear_run_missing");
    }
    // A run without named tasks is cleared of all its failures.
    let named = |task: &str| body["task_ids"].as_array().is_none_or(|tasks| tasks.contains(&task.into()));
    let with_downstream = body["include_downstream"] == json!(true);
    let mut engine = server.engine();
    let (is_failed, is_older) = (engine.failed.contains(&run), engine.older.contains(&run));
    let cleared: Vec<&str> = [
        ("fetch", is_failed && named("fetch")),
        ("store", is_failed && (named("store") || (with_downstream && named("fetch")))),
        ("older", is_older && named("older")),
    ]
    .into_iter()
    .filter_map(|(task, is_cleared)| is_cleared.then_some(task))
    .collect();
    // `dry_run` is true unless the request says otherwise.
    let is_dry = body["dry_run"] != json!(false);
    if !is_dry && engine.refuses_run == Some(run) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the database is away").into_response();
    }
    if !is_dry {
        engine.failed.retain(|failed| *failed != run || !cleared.contains(&"fetch"));
        engine.older.retain(|older| *older != run || !cleared.contains(&"older"));
        if engine.loses_answer_of == Some(run) {
            return (StatusCode::GATEWAY_TIMEOUT, "upstream is slow").into_response();
        }
    }
    drop(engine);
    server.answer_with(if is_dry { "clear_dry_run" } else { "clear" }, |answer| {
        let tasks = answer["task_instances"].as_array_mut().expect("it is a list");
        let one = tasks.first().expect("it is not empty").clone();
        *tasks = cleared
            .iter()
            .map(|task| {
                let mut one = one.clone();
                one["task_id"] = (*task).into();
                one["dag_run_id"] = run.into();
                one
            })
            .collect();
        answer["total_entries"] = cleared.len().into();
    })
}
