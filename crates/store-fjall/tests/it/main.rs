//! The embedded backend against the conformance suite, and against crashes.

mod crash;
mod files;

use std::{path::PathBuf, sync::Arc};

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use myelin_store::{Store, backend::Backend, conformance::Harness};
use myelin_store_fjall::Fjall;

struct Directory {
    path: tempfile::TempDir,
    runtime: tokio::runtime::Handle,
}

impl Harness for Directory {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
        let backend: Arc<dyn Backend> = Arc::new(Fjall::open(self.path.path()).unwrap());
        future::ready(backend).boxed()
    }

    fn run_all(&self, tasks: Vec<BoxFuture<'static, ()>>) -> BoxFuture<'_, ()> {
        let tasks: Vec<_> = tasks.into_iter().map(|task| self.runtime.spawn(task)).collect();
        async move {
            for task in tasks {
                task.await.unwrap();
            }
        }
        .boxed()
    }
}

fn in_a_directory(case: impl for<'a> FnOnce(&'a dyn Harness) -> BoxFuture<'a, ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let harness = Directory { path: tempfile::tempdir().unwrap(), runtime: runtime.handle().clone() };
    runtime.block_on(case(&harness));
}

myelin_store::conformance_suite!(in_a_directory);

fn open(path: impl Into<PathBuf>) -> Store {
    Store::new(Arc::new(Fjall::open(&path.into()).unwrap()))
}
