//! Connections: the pool, the few that reads share, and errors as sentences.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use myelin_store::Error;
use parking_lot::Mutex;
use tokio_postgres::{Config, NoTls};

/// Connections of one process: those that reads share, the writer's, and those of open snapshots.
const CONNECTIONS_MAX: usize = 20;
const READ_CONNECTIONS: usize = 4;
/// For connecting, and for a free connection when all are in use.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn parse(uri: &str) -> Result<Config, Error> {
    let mut config: Config = uri.parse().map_err(|error: tokio_postgres::Error| {
        Error::Backend(format!("the PostgreSQL URI is not valid: {}", sentence(&error)))
    })?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("myelin");
    }
    Ok(config)
}

pub(crate) fn pool(config: Config) -> Result<Pool, Error> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Pool::builder(Manager::from_config(config, NoTls, recycling))
        .max_size(CONNECTIONS_MAX)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| Error::Backend(error.to_string()))
}

pub(crate) async fn client(pool: &Pool) -> Result<Object, Error> {
    pool.get().await.map_err(|error| match error {
        deadpool_postgres::PoolError::Backend(error) => failed(error),
        deadpool_postgres::PoolError::Closed => Error::Backend("the store is closed".to_owned()),
        error => Error::Backend(format!("no connection to PostgreSQL: {error}")),
    })
}

pub(crate) fn failed(error: tokio_postgres::Error) -> Error {
    Error::Backend(format!("PostgreSQL: {}", sentence(&error)))
}

/// The driver's messages name the kind of an error; what happened is in its source.
fn sentence(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(error), _) => error.message().to_owned(),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// Connections that all reads share in turn; requests on one connection are pipelined.
pub(crate) struct Readers {
    pool: Pool,
    shared: [Mutex<Option<Arc<Object>>>; READ_CONNECTIONS],
    turn: AtomicUsize,
    closed: AtomicBool,
}

impl Readers {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, shared: Default::default(), turn: AtomicUsize::new(0), closed: AtomicBool::new(false) }
    }

    /// The next connection in turn, replaced if it was lost.
    pub(crate) async fn next(&self) -> Result<Arc<Object>, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Backend("the store is closed".to_owned()));
        }
        let slot = &self.shared[self.turn.fetch_add(1, Ordering::Relaxed) % READ_CONNECTIONS];
        if let Some(client) = slot.lock().clone().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let fresh = Arc::new(client(&self.pool).await?);
        *slot.lock() = Some(fresh.clone());
        Ok(fresh)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        for slot in &self.shared {
            slot.lock().take();
        }
    }
}
