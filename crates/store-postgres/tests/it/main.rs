//! The PostgreSQL backend against the conformance suite, with several nodes on one database, and against crashes.

mod crash;
mod database;
mod nodes;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use myelin_store::{Store, backend::Backend, conformance::Harness};
use myelin_store_postgres::Postgres;

use crate::database::Database;

impl Harness for Database {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        async { Arc::new(Postgres::open(&self.uri).await.unwrap()) as Arc<dyn Backend> }.boxed()
    }

    fn run_all(&self, tasks: Vec<BoxFuture<'static, ()>>) -> BoxFuture<'_, ()> {
        let runtime = tokio::runtime::Handle::current();
        let tasks: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
        async move {
            for task in tasks {
                task.await.unwrap();
            }
        }
        .boxed()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

fn in_a_database(case: impl for<'a> FnOnce(&'a dyn Harness) -> BoxFuture<'a, ()>) {
    runtime().block_on(async {
        let database = Database::create().await;
        case(&database).await;
        database.drop().await;
    });
}

myelin_store::conformance_suite!(in_a_database);

async fn open(database: &Database) -> Store {
    Store::new(Arc::new(Postgres::open(&database.uri).await.unwrap()))
}
