//! What must survive a restart: keys, usage, jobs, files. The only room that knows SQL; SQLite and PostgreSQL run the same statements.

pub mod audit;
pub mod files;
pub mod jobs;
pub mod keys;
mod limits;
mod schema;
pub mod segments;
pub mod usage;

use rand::TryRng as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Row, Transaction};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// An SQLite file, made if it is not there.
    File(PathBuf),
    /// PostgreSQL, which several servers may share. The URL holds a password.
    Postgres(String),
    /// In memory: everything works, nothing survives.
    Memory,
}

/// Without the URL's password.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Postgres(_) => f.write_str("Postgres(***)"),
            Self::Memory => f.write_str("Memory"),
        }
    }
}

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the store at {place}: {reason}")]
    Open { place: String, reason: String },
    #[error("the store failed: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the store holds {what} that cannot be read: {value:?}")]
    Corrupt { what: &'static str, value: String },
}

/// What the store says.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Connections to PostgreSQL. SQLite has one: its writers wait for each other anyway.
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long a statement waits for a connection, and SQLite for another process.
const PATIENCE: Duration = Duration::from_secs(10);
/// Random bytes of the server's secret.
const SECRET_BYTES: usize = 32;

/// The open store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    postgres: bool,
    /// A database in memory lives as long as a connection to it, and those of a pool come and go: one that was left half-way is replaced.
    _keeper: Option<Arc<Mutex<AnyConnection>>>,
}

impl Store {
    /// Opens the store and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`], naming the place without its password.
    pub async fn open(place: &Place) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let shown = match place {
            Place::File(path) => path.display().to_string(),
            Place::Postgres(url) => without_password(url),
            Place::Memory => "memory".to_owned(),
        };
        Self::open_unnamed(place).await.map_err(|reason| StoreError::Open { place: shown, reason })
    }

    async fn open_unnamed(place: &Place) -> std::result::Result<Self, String> {
        let postgres = matches!(place, Place::Postgres(_));
        let url = match place {
            Place::File(path) => {
                make_private(path).map_err(|error| error.to_string())?;
                sqlite_url(path)?
            }
            Place::Postgres(url) => url.clone(),
            Place::Memory => format!("sqlite:file:vecmill-{}?mode=memory&cache=shared", uuid::Uuid::now_v7().simple()),
        };
        let options = AnyConnectOptions::from_str(&url).map_err(|error| error.to_string())?;
        // The pool would try again and again; at the start the first refusal is the answer.
        let first = AnyConnection::connect_with(&options).await.map_err(|error| error.to_string())?;
        let keeper = match place {
            Place::Memory => Some(Arc::new(Mutex::new(first))),
            Place::File(_) | Place::Postgres(_) => {
                first.close().await.map_err(|error| error.to_string())?;
                None
            }
        };
        let pool = AnyPoolOptions::new().acquire_timeout(PATIENCE);
        let pool = if postgres {
            pool.max_connections(POSTGRES_CONNECTIONS)
        } else {
            // One connection for as long as it is sound.
            let pool = pool.max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None);
            pool.after_connect(|connection, _| {
                Box::pin(async move {
                    let milliseconds = PATIENCE.as_millis();
                    let pragmas = format!(
                        "PRAGMA busy_timeout = {milliseconds}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
                    );
                    sqlx::raw_sql(AssertSqlSafe(pragmas)).execute(connection).await.map(|_| ())
                })
            })
        };
        let pool = pool.connect_with(options).await.map_err(|error| error.to_string())?;
        schema::migrator(postgres).run(&pool).await.map_err(|error| error.to_string())?;
        Ok(Self { pool, postgres, _keeper: keeper })
    }

    /// True if other servers may use this store too.
    pub fn shared(&self) -> bool {
        self.postgres
    }

    /// Ends all connections, after what runs on them.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Answers if the store does.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// The secret that signs links: drawn once, the same for every server of this store, and after a restart.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn secret(&self) -> Result<Vec<u8>> {
        let mut drawn = [0u8; SECRET_BYTES];
        rand::rngs::SysRng.try_fill_bytes(&mut drawn).map_err(|error| StoreError::Sql(sqlx::Error::Io(std::io::Error::other(error))))?;
        let drawn = to_hex(&drawn);
        let insert = "INSERT INTO settings (name, value) VALUES ('secret', $1) ON CONFLICT (name) DO NOTHING";
        sqlx::query(insert).bind(drawn).execute(&self.pool).await?;
        let value: String = sqlx::query("SELECT value FROM settings WHERE name = 'secret'").fetch_one(&self.pool).await?.try_get(0)?;
        from_hex(&value).ok_or(StoreError::Corrupt { what: "a secret", value: "***".to_owned() })
    }

    /// The words in which the two databases differ: `{now}` is the time in milliseconds by the database's clock, `{lock}` takes the rows of `s`
    /// in a SELECT for this transaction and passes over those that another one has, `{hold}` waits for them.
    fn sql(&self, text: &'static str) -> AssertSqlSafe<String> {
        self.sql_text(text)
    }

    /// The same for a text put together of such literals; values are bound, never written into it.
    fn sql_text(&self, text: &str) -> AssertSqlSafe<String> {
        let (now, lock, hold) = if self.postgres {
            ("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)", "FOR UPDATE OF s SKIP LOCKED", "FOR UPDATE")
        } else {
            // Its writers come one after the other: BEGIN IMMEDIATE is the lock.
            ("CAST(unixepoch('subsec') * 1000 AS INTEGER)", "", "")
        };
        AssertSqlSafe(text.replace("{now}", now).replace("{lock}", lock).replace("{hold}", hold))
    }

    /// A transaction that will write.
    async fn write(&self) -> Result<Transaction<'static, Any>> {
        // SQLite refuses to turn a reader into a writer while another one writes; so it is a writer from the start.
        let begin = if self.postgres { "BEGIN" } else { "BEGIN IMMEDIATE" };
        match self.pool.begin_with(begin).await {
            // SQLite ends a transaction by itself when the disk is full, and the driver takes it for open ever after. A new connection does not.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.pool.acquire().await?.close().await?;
                Ok(self.pool.begin_with(begin).await?)
            }
            transaction => Ok(transaction?),
        }
    }
}

/// Makes the file, and the directory if need be, for this user only.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(|_| ())
}

fn sqlite_url(path: &Path) -> std::result::Result<String, String> {
    let path = path.to_str().ok_or("the path is not UTF-8")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let path: String = path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect();
    Ok(format!("sqlite:{path}?mode=rwc"))
}

/// `postgres://user:***@host/db`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres".to_owned() };
    let rest = rest.split('?').next().unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse of `to_hex`.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs a test's future.
    pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn the_secret_outlives_the_server_and_differs_between_stores() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let place = Place::File(dir.path().join("a b%/100 ?#.db"));
            let first = Store::open(&place).await.unwrap();
            let secret = first.secret().await.unwrap();
            assert_eq!((secret.len(), first.secret().await.unwrap()), (SECRET_BYTES, secret.clone()));
            first.close().await;
            assert_eq!(Store::open(&place).await.unwrap().secret().await.unwrap(), secret);
            assert_ne!(Store::open(&Place::Memory).await.unwrap().secret().await.unwrap(), secret);
        });
    }

    #[test]
    fn what_is_in_memory_outlives_a_connection() {
        run(async {
            let store = Store::open(&Place::Memory).await.unwrap();
            let secret = store.secret().await.unwrap();
            store.pool.acquire().await.unwrap().close().await.unwrap();
            assert_eq!(store.secret().await.unwrap(), secret);
        });
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data/vecmill.db");
            let _store = Store::open(&Place::File(path.clone())).await.unwrap();
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        });
    }

    #[test]
    fn a_place_that_cannot_be_opened_is_named_without_its_password() {
        run(async {
            let error = Store::open(&Place::File("/dev/null/x/vecmill.db".into())).await.err().unwrap().to_string();
            assert!(error.contains("/dev/null/x/vecmill.db"), "{error}");
            let place = Place::Postgres("postgres://me:secret@127.0.0.1:1/db?password=secret".to_owned());
            let error = Store::open(&place).await.err().unwrap().to_string();
            assert!(error.contains("postgres://me:***@127.0.0.1:1/db") && !error.contains("secret"), "{error}");
            assert!(!format!("{place:?}").contains("secret"));
        });
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(from_hex(&to_hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("\u{e9}")), (None, None, None));
    }
}
