//! The replicas' databases: made where they are missing and that is permitted, and refused where they belong to
//! somebody else.
//!
//! It brings no tables and no rows there; replicas do. Invariant: no message holds a password.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgConnectOptions};
use std::{fmt, str::FromStr, time::Duration};

use crate::types::{Digest, ReplicaIndex};

/// What a template holds where a replica's name (r0, r1, ..) goes.
const PLACEHOLDER: &str = "{replica}";

/// How long a server may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// From which database another one is created: every server has it.
const MAINTENANCE: &str = "postgres";

/// The URL of each replica's database, with `{replica}` in it. It may hold a password, so it does not print
/// itself.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseTemplate(String);

impl fmt::Debug for DatabaseTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseTemplate(..)")
    }
}

/// Why a text is no template. It does not repeat the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseTemplateError {
    /// It is no URL of Postgres.
    #[error(
        "must begin with postgres:// or postgresql://, such as postgres://me@localhost/quorate_{{replica}}"
    )]
    Scheme,
    /// All replicas would have one database.
    #[error(
        "must contain {{replica}}, such as postgres://me@localhost/quorate_{{replica}}: each replica has its own"
    )]
    NoPlaceholder,
    /// It names no database.
    #[error("names no database, such as quorate_{{replica}} in postgres://me@localhost/quorate_{{replica}}")]
    NoDatabase,
    /// It does not parse.
    #[error("is malformed: {0}")]
    Malformed(String),
}

impl DatabaseTemplate {
    /// The URL of one replica's database.
    pub(super) fn url(&self, place: u16) -> String {
        self.0.replace(PLACEHOLDER, &ReplicaIndex::new(place).to_string())
    }
}

impl FromStr for DatabaseTemplate {
    type Err = DatabaseTemplateError;

    fn from_str(text: &str) -> Result<Self, DatabaseTemplateError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseTemplateError::Scheme);
        }
        if !text.contains(PLACEHOLDER) {
            return Err(DatabaseTemplateError::NoPlaceholder);
        }
        let template = Self(text.to_owned());
        let options: PgConnectOptions = match template.url(0).parse() {
            Ok(options) => options,
            Err(sqlx::Error::Configuration(why)) => {
                return Err(DatabaseTemplateError::Malformed(why.to_string()));
            }
            Err(_) => return Err(DatabaseTemplateError::Malformed("it is no URL of Postgres".to_owned())),
        };
        if options.get_database().is_none_or(str::is_empty) {
            return Err(DatabaseTemplateError::NoDatabase);
        }
        Ok(template)
    }
}

/// Why a replica has no database.
#[derive(Debug, thiserror::Error)]
pub enum DevDatabaseError {
    /// Its URL does not parse; the file is kept by an earlier start.
    #[error("the kept URL of replica {replica}'s database is malformed; give --database-url again")]
    Url {
        /// The replica.
        replica: ReplicaIndex,
    },
    /// Nobody answers.
    #[error(
        "{database}: Postgres does not answer: {why}; is the server running there, and is the address right?"
    )]
    Unreachable {
        /// Which, without its password.
        database: String,
        /// Why.
        why: String,
    },
    /// The server does not let the user in.
    #[error(
        "{database}: Postgres refuses the connection: {why}; correct --database-url, or give the password by \
         PGPASSWORD or a .pgpass file"
    )]
    Refused {
        /// Which, without its password.
        database: String,
        /// What the server said.
        why: String,
    },
    /// It is missing, and cannot be created.
    #[error(
        "{database}: there is no such database, and it cannot be created: {why}; create it yourself: \
         createdb --template=template0 --encoding=UTF8 {name}"
    )]
    NotCreated {
        /// Which, without its password.
        database: String,
        /// Its name.
        name: String,
        /// What the server said.
        why: String,
    },
    /// Another replica, or another cluster, uses it.
    #[error(
        "{database}: belongs to replica {replica} of cluster {cluster}, which is not replica {expected} of this \
         one; give each replica a database of its own, or drop this one if nothing in it is needed: dropdb {name}"
    )]
    Foreign {
        /// Which, without its password.
        database: String,
        /// Its name.
        name: String,
        /// Whose it should be.
        expected: ReplicaIndex,
        /// The replica in the database.
        replica: String,
        /// The start of the cluster's digest in the database.
        cluster: String,
    },
    /// It cannot be asked whose it is.
    #[error("{database}: cannot be asked whose it is: {why}")]
    Unreadable {
        /// Which, without its password.
        database: String,
        /// What the server said.
        why: String,
    },
}

/// One replica's database.
#[derive(Debug)]
pub(super) struct ReplicaDatabase {
    replica: ReplicaIndex,
    options: PgConnectOptions,
}

impl ReplicaDatabase {
    pub(super) fn of(place: u16, url: &str) -> Result<Self, DevDatabaseError> {
        let replica = ReplicaIndex::new(place);
        let options = url.parse().map_err(|_| DevDatabaseError::Url { replica })?;
        Ok(Self { replica, options })
    }

    /// Makes sure that the database is there, and that nobody but this replica of this cluster uses it; without
    /// a cluster, nobody may have used it.
    pub(super) async fn make_sure(&self, cluster: Option<Digest>) -> Result<(), DevDatabaseError> {
        let mut connection = match connect(&self.options).await {
            Ok(connection) => connection,
            Err(error) if is_missing(&error) => self.create().await?,
            Err(error) => return Err(self.not_connected(&error)),
        };
        let owner = owner(&mut connection).await;
        // The server notices a closed socket by itself; a failure to say goodbye harms nothing.
        let _ = connection.close().await;
        let owner = owner
            .map_err(|error| DevDatabaseError::Unreadable { database: self.shown(), why: told(&error) })?;
        let mine = i32::from(self.replica.place());
        match owner {
            Some(owner) if cluster.is_none_or(|cluster| owner != (cluster.as_bytes().to_vec(), mine)) => {
                let (of, replica) = owner;
                Err(DevDatabaseError::Foreign {
                    database: self.shown(),
                    name: self.name().to_owned(),
                    expected: self.replica,
                    replica: format!("r{replica}"),
                    cluster: of.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn create(&self) -> Result<PgConnection, DevDatabaseError> {
        let not_created = |error: sqlx::Error| DevDatabaseError::NotCreated {
            database: self.shown(),
            name: self.name().to_owned(),
            why: told(&error),
        };
        let mut connection =
            connect(&self.options.clone().database(MAINTENANCE)).await.map_err(not_created)?;
        let name = self.name().replace('"', "\"\"");
        let statement =
            AssertSqlSafe(format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'"));
        let created = sqlx::raw_sql(statement).execute(&mut connection).await;
        // As above.
        let _ = connection.close().await;
        created.map_err(not_created)?;
        connect(&self.options).await.map_err(|error| self.not_connected(&error))
    }

    fn not_connected(&self, error: &sqlx::Error) -> DevDatabaseError {
        let (database, why) = (self.shown(), told(error));
        if error.as_database_error().is_some() {
            DevDatabaseError::Refused { database, why }
        } else {
            DevDatabaseError::Unreachable { database, why }
        }
    }

    fn name(&self) -> &str {
        self.options.get_database().unwrap_or_default()
    }

    /// Where the database is, without a password.
    fn shown(&self) -> String {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        format!("postgres://{}@{host}:{}/{}", options.get_username(), options.get_port(), self.name())
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Whether the server answered that there is no such database (`invalid_catalog_name`).
fn is_missing(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("3D000"))
}

/// The cluster and the replica that use the database; `None` when nobody does yet.
async fn owner(connection: &mut PgConnection) -> Result<Option<(Vec<u8>, i32)>, sqlx::Error> {
    let used: bool = sqlx::query_scalar("SELECT to_regclass('replica_meta') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !used {
        return Ok(None);
    }
    let row =
        sqlx::query("SELECT cluster, replica FROM replica_meta").fetch_optional(&mut *connection).await?;
    row.map(|row| Ok((row.try_get("cluster")?, row.try_get("replica")?))).transpose()
}

/// What went wrong, in the server's words where it has some.
fn told(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{DatabaseTemplate, DatabaseTemplateError, ReplicaDatabase};

    #[test]
    fn a_template_gives_each_replica_a_database_and_shows_no_password() {
        let text = "postgres://me:secret@host:5433/quorate_{replica}?sslmode=disable";
        let template: DatabaseTemplate = text.parse().expect("it is a template");
        assert_eq!(template.url(12), "postgres://me:secret@host:5433/quorate_r12?sslmode=disable");
        let database = ReplicaDatabase::of(12, &template.url(12)).expect("it is a URL");
        assert_eq!(database.shown(), "postgres://me@host:5433/quorate_r12");
        assert!(!format!("{template:?} {:?}", database.shown()).contains("secret"));
        let by_socket: DatabaseTemplate =
            "postgres:///q_{replica}?host=%2Frun%2Fpg&user=me".parse().expect("it is a template");
        let database = ReplicaDatabase::of(0, &by_socket.url(0)).expect("it is a URL");
        assert_eq!(database.shown(), "postgres://me@/run/pg:5432/q_r0");
    }

    #[test]
    fn what_is_no_template_is_refused_without_repeating_it() {
        let rows = [
            ("mysql://me:secret@host/{replica}", DatabaseTemplateError::Scheme),
            ("", DatabaseTemplateError::Scheme),
            ("postgres://me:secret@host/quorate", DatabaseTemplateError::NoPlaceholder),
            ("postgres://me:secret@{replica}/", DatabaseTemplateError::NoDatabase),
        ];
        for (text, why) in rows {
            assert_eq!(text.parse::<DatabaseTemplate>(), Err(why), "{text}");
        }
        for text in
            ["postgres://me:secret@host:port/{replica}", "postgres://me:secret@h/{replica}?sslmode=no"]
        {
            let error = text.parse::<DatabaseTemplate>().expect_err(text);
            assert!(matches!(error, DatabaseTemplateError::Malformed(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
