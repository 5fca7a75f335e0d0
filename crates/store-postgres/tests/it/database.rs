//! A database of its own for each test, on the server in the environment.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, NoTls};

const SERVER: &str = "MYELIN_TEST_POSTGRES";

pub struct Database {
    pub uri: String,
    name: String,
}

fn server() -> String {
    std::env::var(SERVER).unwrap_or_else(|_| {
        panic!(
            "{SERVER} is not set: run the tests through the test command (cargo xtask test), which starts a server, \
             or set it to postgres://user@host:port/database of a server for tests"
        )
    })
}

/// A connection to the server's own database.
pub async fn administer() -> Client {
    let (client, connection) = tokio_postgres::connect(&server(), NoTls).await.unwrap();
    tokio::runtime::Handle::current().spawn(async { connection.await.ok() });
    client
}

impl Database {
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("myelin_test_{}_{number}", std::process::id());
        let client = administer().await;
        // Left behind by a run that died.
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { uri: in_database(&server(), &name), name }
    }

    pub async fn drop(self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        administer().await.batch_execute(&drop).await.unwrap();
    }

    /// Ends every connection to it, as a restart of the server would.
    pub async fn terminate_connections(&self) -> i64 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        administer().await.query_one(sql, &[&self.name]).await.unwrap().get(0)
    }
}

/// The URI with its path replaced.
fn in_database(uri: &str, name: &str) -> String {
    let (address, query) = uri.split_once('?').map_or((uri, None), |(address, query)| (address, Some(query)));
    let scheme_end = address.find("://").map_or(0, |at| at + 3);
    let host_end = address[scheme_end..].find('/').map_or(address.len(), |at| scheme_end + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &address[..host_end])
}
