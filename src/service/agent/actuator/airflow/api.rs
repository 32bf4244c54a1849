//! Calls of Airflow's REST API, with the token that they need.
//!
//! It knows no pool and no DAG. Invariant: the token is kept in memory only, and is renewed at most once a call.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    super::{ActuatorError, advice, said, secret::Secret},
    AirflowLogin,
};
use crate::service::http_client::{Answer, Bounds, HttpClient};

/// A task instance takes some 1.5 KB in a list, and at most a few hundred are asked for.
const ANSWER_BYTES: usize = 1024 * 1024;

/// An Airflow's API and how it lets us in.
#[derive(Debug)]
pub(super) struct Api {
    client: HttpClient,
    url: String,
    login: AirflowLogin,
    bounds: Bounds,
    token: Mutex<Option<Secret>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

impl Api {
    pub(super) const fn new(client: HttpClient, url: String, login: AirflowLogin, timeout: Duration) -> Self {
        let bounds = Bounds { timeout, body_bytes: ANSWER_BYTES };
        Self { client, url, login, bounds, token: Mutex::new(None) }
    }

    /// Sends a request and reads its answer. A token that Airflow does not take any more is renewed once:
    /// 401 says that it has expired, 403 that the API server has another key since a restart.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ActuatorError> {
        let doing = format!("{doing} at {}", self.url);
        let kept = self.kept_token();
        let is_new = kept.is_none();
        let mut token = match kept {
            Some(token) => token,
            None => self.new_token(&doing).await?,
        };
        let mut answer = self.exchange(&doing, method.clone(), path, body, Some(&token)).await?;
        if !is_new && matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            token = self.new_token(&doing).await?;
            answer = self.exchange(&doing, method, path, body, Some(&token)).await?;
        }
        parsed(&doing, &answer, &[&token])
    }

    fn kept_token(&self) -> Option<Secret> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn new_token(&self, doing: &str) -> Result<Secret, ActuatorError> {
        let token = match &self.login {
            AirflowLogin::Token(source) => source.read()?,
            AirflowLogin::Password { user, password } => {
                let password = password.read()?;
                let body = json!({ "username": user, "password": password.expose() });
                let doing = format!("log in as {user} to {doing}");
                let answer = self.exchange(&doing, Method::POST, "/auth/token", Some(&body), None).await?;
                let TokenAnswer { access_token } = parsed(&doing, &answer, &[&password])?;
                Secret::received(access_token)
            }
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    async fn exchange(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&Secret>,
    ) -> Result<Answer, ActuatorError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| {
                ActuatorError::Header { doing: doing.to_owned(), header: header::AUTHORIZATION.to_string() }
            })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = match body {
            None => Bytes::new(),
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                body.to_string().into()
            }
        };
        let address = format!("{}{path}", self.url);
        self.client
            .send(method, &address, headers, body, self.bounds)
            .await
            .map_err(|source| ActuatorError::NoAnswer { doing: doing.to_owned(), source })
    }
}

/// The answer's JSON, when its status is one of success.
fn parsed<T: DeserializeOwned>(
    doing: &str,
    answer: &Answer,
    secrets: &[&Secret],
) -> Result<T, ActuatorError> {
    let said = || said(answer, secrets.iter().copied());
    if !answer.status.is_success() {
        return Err(ActuatorError::EngineRefused {
            doing: doing.to_owned(),
            status: answer.status,
            said: said(),
            next: advice(answer.status),
        });
    }
    serde_json::from_slice(&answer.body).map_err(|error| ActuatorError::WrongAnswer {
        doing: doing.to_owned(),
        problem: format!("the answer is not what Airflow 3 says ({error}): {}", said()),
    })
}
