//! Opening the database: for reading, a bounded pool; for writing, one connection that owns the database while
//! it lives, after the checks that it is this replica's and that its tables are this program's.
//!
//! Nothing here waits without end: a server that hangs is given up after a named time. Invariant: a database
//! that is refused has not been changed.

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::time::Duration;

use super::{
    error::{ConnectError, QueryError, StatementError},
    gaps::{LogGap, read_newest_gap},
    queries::{AppliedHeight, read_applied},
    values::{Row, column_i64},
};
use crate::types::{Digest, Epoch, Millis, ReplicaIndex};

/// How many connections answer queries; one more writes.
const POOL_CONNECTIONS_MAX: u32 = 8;

/// How long a connection may take to be made before the database counts as away.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the checks of a new connection may take: they read single rows.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// How long new tables may take. A migration may copy a table of findings, which has some thousand rows a day.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long saying goodbye may take; the server notices a closed socket by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest server that computes `extract` exactly, which the conversion of times relies on.
const SERVER_VERSION_MIN: i32 = 140_000;

/// What every session sets. Times print in UTC, and nothing may hold a lock or a connection for ever. The server
/// gives up before the client does, so that its reason is heard: a lock after 5 s, a statement after 10 s, and
/// the client a block after [`super::apply::APPLY_TIMEOUT`].
const SESSION_SETTINGS: [(&str, &str); 7] = [
    ("timezone", "UTC"),
    ("lock_timeout", "5s"),
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "60s"),
    // A machine that vanished holds the database for half a minute, not for two hours.
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// The parameters of a URL that have a meaning. Others are refused: the library would print them with their
/// values, and a mistyped `password` is one of them.
pub(super) const URL_PARAMETERS: [&str; 10] =
    ["host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey"];

/// The advisory lock that the writer of a database holds: "quorate" as a number.
const WRITER_LOCK: i64 = 0x0071_756f_7261_7465;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Whose database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The cluster.
    pub cluster: Digest,
    /// The epoch that the replica is in; a database never goes back to an earlier one.
    pub epoch: Epoch,
    /// The replica.
    pub replica: ReplicaIndex,
}

/// A replica's database, for queries. Clones share one pool.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: PgPool,
    pub(super) window: Millis,
}

impl Store {
    /// Connects for reading; the tables are the writer's business.
    ///
    /// `window` is the windows' length, by which a window's number becomes a time.
    ///
    /// # Errors
    /// [`ConnectError`] says whether to wait or to correct the URL or the server.
    pub async fn connect(url: &str, window: Millis) -> Result<Self, ConnectError> {
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options(url)?.application_name("quorate queries"))
            .await
            .map_err(ConnectError::connecting)?;
        Ok(Self { pool, window })
    }
}

/// The one connection that writes to a replica's database.
///
/// After an error that is not about the block itself it is dropped and another one is opened: what a broken
/// connection still does on the server is settled by the lock that it holds until it ends.
#[derive(Debug)]
pub struct Writer {
    pub(super) connection: PgConnection,
    pub(super) window: Millis,
    pub(super) generation: i64,
    applied: AppliedHeight,
    gap: Option<LogGap>,
}

impl Writer {
    /// Connects, checks whose database it is, brings the tables to this program's version and claims the database
    /// for this process. An earlier process of the same replica can no longer apply blocks from then on.
    ///
    /// `window` is the windows' length, by which a window's number becomes a time. `process` is what others are
    /// told of this one, at most 63 bytes.
    ///
    /// # Errors
    /// [`ConnectError`] says whether to wait, to repair the database or to choose another.
    pub async fn connect(
        url: &str,
        identity: StoreIdentity,
        window: Millis,
        process: &str,
    ) -> Result<Self, ConnectError> {
        let options = options(url)?.application_name(process);
        let connection =
            within(CONNECT_TIMEOUT, async { options.connect().await.map_err(ConnectError::connecting) });
        let mut connection = connection.await?;
        let pending = within(CHECK_TIMEOUT, check(&mut connection, identity)).await?;
        if pending {
            within(MIGRATE_TIMEOUT, migrate(&mut connection)).await?;
        }
        within(CHECK_TIMEOUT, async {
            let generation = claim(&mut connection, identity).await?;
            let refused = |error| match error {
                QueryError::Statement(error) => ConnectError::Statement(error),
                QueryError::Corrupt(row) => ConnectError::Corrupt(row),
            };
            let applied = read_applied(&mut connection).await.map_err(refused)?;
            let gap = read_newest_gap(&mut connection).await.map_err(refused)?;
            Ok((generation, applied, gap))
        })
        .await
        .map(|(generation, applied, gap)| Self { connection, window, generation, applied, gap })
    }

    /// The newest heights that the database lacked when the connection was opened.
    #[must_use]
    pub const fn gap(&self) -> Option<LogGap> {
        self.gap
    }

    /// How far the log was applied when the connection was opened.
    #[must_use]
    pub const fn applied(&self) -> AppliedHeight {
        self.applied
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none.
    pub async fn ping(&mut self) -> Result<(), ConnectError> {
        within(CONNECT_TIMEOUT, async { self.connection.ping().await.map_err(ConnectError::connecting) })
            .await
    }

    /// Closes the connection in order, if the server takes part.
    pub async fn close(self) {
        // The server ends the session of a closed socket by itself.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.connection.close()).await;
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(ConnectError::TimedOut(limit)))
}

fn options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut names = parameters.split('&').filter(|pair| !pair.is_empty());
    let is_known = |pair: &str| URL_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    if !names.all(is_known) {
        return Err(ConnectError::UrlParameter);
    }
    let options: PgConnectOptions = url.parse().map_err(ConnectError::Url)?;
    Ok(options.options(SESSION_SETTINGS))
}

/// Checks everything that can be refused, changes nothing, and takes the writer's lock. Says whether the tables
/// must be migrated.
async fn check(connection: &mut PgConnection, identity: StoreIdentity) -> Result<bool, ConnectError> {
    check_server(connection).await?;
    check_owner(connection, identity).await?;
    let pending = check_tables(connection).await?;
    // A backend that waits for a lock then notices within 2 s that its client is gone. Not every system can.
    let _ = sqlx::raw_sql("SET client_connection_check_interval = '2s'").execute(&mut *connection).await;
    let is_free = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "free!""#, WRITER_LOCK)
        .fetch_one(&mut *connection)
        .await
        .map_err(StatementError::on("replica_meta"))?;
    if is_free { Ok(pending) } else { Err(ConnectError::InUse { holder: holder(connection).await? }) }
}

async fn check_server(connection: &mut PgConnection) -> Result<(), ConnectError> {
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::integer AS "number!",
                  current_setting('server_version') AS "version!",
                  current_setting('server_encoding') AS "encoding!""#
    )
    .fetch_one(connection)
    .await
    .map_err(ConnectError::connecting)?;
    if server.number < SERVER_VERSION_MIN {
        return Err(ConnectError::TooOld { version: server.version });
    }
    if server.encoding != "UTF8" {
        return Err(ConnectError::Encoding(server.encoding));
    }
    Ok(())
}

/// Refuses another's database before anything is written to it. The columns that say whose it is are the same in
/// every version of the tables.
async fn check_owner(connection: &mut PgConnection, identity: StoreIdentity) -> Result<(), ConnectError> {
    if !has_table(connection, "replica_meta").await? {
        return Ok(());
    }
    let owner = sqlx::query!("SELECT cluster, epoch, replica FROM replica_meta")
        .fetch_optional(connection)
        .await
        .map_err(StatementError::on("replica_meta"))?;
    let Some(owner) = owner else { return Ok(()) };
    let row = Row::new("replica_meta", "the only one");
    let cluster = row.digest("cluster", &owner.cluster)?;
    let epoch = Epoch::new(row.counter("epoch", owner.epoch)?);
    let replica = row.replica("replica", owner.replica)?;
    let is_ours = cluster == identity.cluster && replica == identity.replica && epoch <= identity.epoch;
    if is_ours { Ok(()) } else { Err(ConnectError::WrongReplica { cluster, epoch, replica }) }
}

/// Refuses tables of a newer program or of another build; says whether migrations are missing.
async fn check_tables(connection: &mut PgConnection) -> Result<bool, ConnectError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if !has_table(connection, "_sqlx_migrations").await? {
        return Ok(true);
    }
    // The table is the library's, so the checked queries' database does not have it.
    let stored: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(connection)
            .await
            .map_err(StatementError::on("_sqlx_migrations"))?;
    if let Some((newest, ..)) = stored.last().filter(|(newest, ..)| *newest > known) {
        return Err(ConnectError::NewerTables { stored: *newest, known });
    }
    for (version, is_complete, checksum) in &stored {
        let ours = MIGRATIONS.iter().find(|migration| migration.version == *version);
        if !is_complete || ours.is_none_or(|migration| *migration.checksum != **checksum) {
            return Err(ConnectError::OtherTables(*version));
        }
    }
    Ok(stored.len() < MIGRATIONS.iter().count())
}

async fn has_table(connection: &mut PgConnection, table: &'static str) -> Result<bool, ConnectError> {
    sqlx::query_scalar!(r#"SELECT to_regclass($1) IS NOT NULL AS "there!""#, table)
        .fetch_one(connection)
        .await
        .map_err(StatementError::on(table))
        .map_err(ConnectError::from)
}

/// Who holds the writer's lock, as far as the server tells: it hides other users' sessions.
async fn holder(connection: &mut PgConnection) -> Result<String, ConnectError> {
    let session = sqlx::query!(
        r#"SELECT a.pid AS "pid!", coalesce(a.application_name, '') AS "name!",
                  coalesce(host(a.client_addr), 'this machine') AS "from!",
                  to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since
           FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
           WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND (l.classid::bigint << 32) | l.objid::bigint = $1"#,
        WRITER_LOCK,
    )
    .fetch_optional(connection)
    .await
    .map_err(StatementError::on("pg_locks"))?;
    Ok(session.map_or_else(
        || "a process that has just ended".to_owned(),
        |session| {
            let name = if session.name.is_empty() { "another process" } else { &session.name };
            let since = session.since.map(|since| format!(", since {since} UTC")).unwrap_or_default();
            format!("{name} (session {} from {}{since})", session.pid, session.from)
        },
    ))
}

async fn migrate(connection: &mut PgConnection) -> Result<(), ConnectError> {
    let setting = |error| ConnectError::Migrate(MigrateError::Execute(error));
    // A migration may read whole tables; only its waiting for locks stays bounded.
    sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await.map_err(setting)?;
    // `run` cannot be called from a task that moves between threads: its `Acquire` is not general enough.
    MIGRATIONS.run_direct(None, &mut *connection, false).await.map_err(ConnectError::Migrate)?;
    sqlx::raw_sql("RESET statement_timeout").execute(connection).await.map_err(setting)?;
    Ok(())
}

/// Writes who owns the database, or checks it, and answers with this process's generation.
async fn claim(connection: &mut PgConnection, identity: StoreIdentity) -> Result<i64, ConnectError> {
    let cluster = identity.cluster.as_bytes().as_slice();
    let replica = i32::from(identity.replica.place());
    // An epoch past 2^63 is refused by the comparison below, as any other foreign one.
    let epoch = column_i64(identity.epoch.number());
    let generation = sqlx::query_scalar!(
        r#"INSERT INTO replica_meta AS mine (cluster, epoch, replica, generation) VALUES ($1, $2, $3, 1)
           ON CONFLICT (singleton) DO UPDATE
               SET generation = mine.generation + 1, epoch = excluded.epoch
               WHERE mine.cluster = excluded.cluster AND mine.replica = excluded.replica
                   AND mine.epoch <= excluded.epoch
           RETURNING generation"#,
        cluster,
        epoch,
        replica,
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(StatementError::on("replica_meta"))?;
    match generation {
        Some(generation) => Ok(generation),
        // It got another owner since it was looked at.
        None => Err(check_owner(connection, identity).await.err().unwrap_or_else(|| ConnectError::InUse {
            holder: "a process that came at the same time".to_owned(),
        })),
    }
}
