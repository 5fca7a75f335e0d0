//! The writer task: natural group commit, each group one transaction of two round trips.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deadpool_postgres::{Object, Pool};
use futures::{FutureExt, channel::oneshot, future::try_join_all};
use myelin_store::{
    CommitError, Error,
    backend::{CommitFuture, Committed, RawBatch},
    group::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX, Group, QUEUE_BYTES_MAX, stored_key},
    tables::TableId,
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::{Statement, types::ToSql};

use crate::{
    connect::{self, failed},
    follow::{self, Announce, CHANNEL},
    schema,
};

const LOCK: &str = "SELECT last, pg_current_xact_id()::text FROM myelin_position FOR UPDATE";
const MOVE: &str = "UPDATE myelin_position SET last = $1";
const NOTIFY: &str = "SELECT pg_notify($1, $2)";
const OUTCOME: &str = "SELECT pg_xact_status($1::text::xid8)";
/// How often and how long the outcome of a commit whose answer was lost is asked for.
const OUTCOME_ATTEMPTS: u32 = 20;
const OUTCOME_INTERVAL: Duration = Duration::from_millis(250);

type Answer = Result<Committed, CommitError>;

struct Job {
    batch: RawBatch,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

/// Handle of the writer task.
pub(crate) struct Writer {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    waiting_bytes: Arc<AtomicUsize>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(crate) fn start(pool: Pool, announce: Announce) -> Self {
        let (queue, jobs) = mpsc::unbounded_channel();
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let task = Task { pool, announce, jobs, waiting_bytes: waiting_bytes.clone(), client: None };
        let task = tokio::runtime::Handle::current().spawn(task.run());
        Self { queue: Mutex::new(Some(queue)), waiting_bytes, task: Mutex::new(Some(task)) }
    }

    pub(crate) fn submit(&self, batch: RawBatch) -> CommitFuture {
        let (answer, answered) = oneshot::channel();
        let bytes = batch.bytes();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            let overloaded = "too many writes wait for PostgreSQL; try again later".to_owned();
            answer.send(Err(Error::Backend(overloaded).into())).ok();
        } else if let Some(queue) = &*self.queue.lock() {
            // Fails only when the task has ended; the answer is dropped with the job then.
            queue.send(Job { batch, bytes, answer }).ok();
        }
        answered.map(|answer| answer.unwrap_or_else(|_| Err(closed().into()))).boxed()
    }

    /// Waits until everything submitted is answered.
    pub(crate) async fn finish(&self) {
        self.queue.lock().take();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the store's writer task had failed");
        }
    }
}

fn closed() -> Error {
    Error::Backend("the store is closed".to_owned())
}

struct Task {
    pool: Pool,
    announce: Announce,
    jobs: mpsc::UnboundedReceiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    client: Option<Object>,
}

/// A transaction that has done its work and may be committed.
struct Prepared {
    answers: Vec<Answer>,
    position: myelin_core::Position,
    /// `None`: nothing to commit.
    writes: Option<Writes>,
    transaction_id: String,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.jobs.recv().await {
            let (batches, waiting) = self.gather(first);
            let count = batches.len();
            let answers = self.commit(batches).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a group of {count} batches was not written");
                vec![Err(error.into()); count]
            });
            for (waiting, answer) in waiting.into_iter().zip(answers) {
                waiting.send(answer).ok();
            }
        }
    }

    /// Everything that waits already, within the limits of a group.
    fn gather(&mut self, first: Job) -> (Vec<RawBatch>, Vec<oneshot::Sender<Answer>>) {
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while jobs.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.bytes;
            jobs.push(job);
        }
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        jobs.into_iter().map(|job| (job.batch, job.answer)).unzip()
    }

    /// One transaction. After an error nothing of it is there, unless the error says that this is not known.
    async fn commit(&mut self, batches: Vec<RawBatch>) -> Result<Vec<Answer>, Error> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connect::client(&self.pool).await?,
        };
        // A connection on which anything failed is not used again: it may be in the middle of a transaction.
        let prepared = match prepare(&client, batches).await {
            Ok(prepared) => prepared,
            Err(error) => return Err(discard(client, error)),
        };
        match write(&client, &prepared).await {
            Ok(()) => self.client = Some(client),
            Err(error) => {
                let error = discard(client, error);
                self.confirm(&prepared.transaction_id, error).await?;
            }
        }
        follow::announce(&self.announce, prepared.position);
        Ok(prepared.answers)
    }

    /// The connection was lost around a commit: PostgreSQL knows what became of it.
    async fn confirm(&self, transaction_id: &str, lost: Error) -> Result<(), Error> {
        for _ in 0..OUTCOME_ATTEMPTS {
            follow::wait(OUTCOME_INTERVAL).await;
            match self.outcome(transaction_id).await.as_deref() {
                Ok("committed") => return Ok(()),
                Ok("aborted") => return Err(lost),
                Ok(_) | Err(_) => {}
            }
        }
        Err(Error::Backend(format!("it is not known whether a commit succeeded: {lost}")))
    }

    async fn outcome(&self, transaction_id: &str) -> Result<String, Error> {
        let client = connect::client(&self.pool).await?;
        let row = client.query_one(OUTCOME, &[&transaction_id]).await.map_err(failed)?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
    }
}

fn discard(client: Object, error: Error) -> Error {
    drop(Object::take(client));
    error
}

/// First round trip: begin, lock the position, load what preconditions are about. Then decides, without I/O.
async fn prepare(client: &Object, batches: Vec<RawBatch>) -> Result<Prepared, Error> {
    let mut loads = Vec::new();
    for (table, keys) in keys_to_load(&batches) {
        let sql = format!("SELECT k, v FROM {} WHERE k = ANY($1)", schema::table_of(table)?);
        loads.push((table, client.prepare_cached(&sql).await.map_err(failed)?, keys));
    }
    let lock = client.prepare_cached(LOCK).await.map_err(failed)?;

    // Pipelined: PostgreSQL runs them in this order, each on what is committed when it begins.
    let begin = client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED");
    let last = client.query_one(&lock, &[]);
    let found = try_join_all(loads.iter().map(|(table, statement, keys)| async move {
        let rows = client.query(statement, &[keys]).await?;
        Ok::<_, tokio_postgres::Error>((*table, rows))
    }));
    let ((), last, found) = futures::try_join!(begin, last, found).map_err(failed)?;

    let mut committed: HashMap<Vec<u8>, Bytes> = HashMap::new();
    for (table, rows) in found {
        let row =
            |row: &tokio_postgres::Row| (stored_key(table, row.get(0)), Bytes::copy_from_slice(row.get(1)));
        committed.extend(rows.iter().map(row));
    }
    let before = schema::position(last.get(0));
    let mut group = Group::new(before, |key: &[u8]| Ok(committed.get(key).cloned()));
    let answers: Vec<Answer> = batches.into_iter().map(|batch| group.add(batch)).collect();
    let Group { position, rows, .. } = group;
    let changed = position != before || !rows.is_empty();
    let writes = if changed { Some(statements(client, rows).await?) } else { None };
    Ok(Prepared { answers, position, writes, transaction_id: last.get(1) })
}

fn keys_to_load(batches: &[RawBatch]) -> BTreeMap<TableId, Column> {
    let mut keys: BTreeMap<TableId, Column> = BTreeMap::new();
    for condition in batches.iter().flat_map(|batch| &batch.preconditions) {
        keys.entry(condition.table()).or_default().push(condition.key().to_vec());
    }
    keys
}

/// Keys or values, one per row.
type Column = Vec<Vec<u8>>;

/// What the transaction does before it ends.
struct Writes {
    puts: Vec<(Statement, Column, Column)>,
    deletes: Vec<(Statement, Column)>,
    move_position: Statement,
    notify: Statement,
}

type StoredRows = HashMap<Vec<u8>, Option<Vec<u8>>>;

async fn statements(client: &Object, rows: StoredRows) -> Result<Writes, Error> {
    let mut puts: BTreeMap<TableId, (Column, Column)> = BTreeMap::new();
    let mut deletes: BTreeMap<TableId, Column> = BTreeMap::new();
    for (stored_key, value) in rows {
        let (table, key) = (TableId(stored_key[0]), stored_key[1..].to_vec());
        match value {
            Some(value) => {
                let (keys, values) = puts.entry(table).or_default();
                keys.push(key);
                values.push(value);
            }
            None => deletes.entry(table).or_default().push(key),
        }
    }
    let mut writes = Writes {
        puts: Vec::new(),
        deletes: Vec::new(),
        move_position: client.prepare_cached(MOVE).await.map_err(failed)?,
        notify: client.prepare_cached(NOTIFY).await.map_err(failed)?,
    };
    for (table, (keys, values)) in puts {
        let sql = format!(
            "INSERT INTO {} (k, v) SELECT * FROM UNNEST($1::bytea[], $2::bytea[]) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v",
            schema::table_of(table)?
        );
        writes.puts.push((client.prepare_cached(&sql).await.map_err(failed)?, keys, values));
    }
    for (table, keys) in deletes {
        let sql = format!("DELETE FROM {} WHERE k = ANY($1)", schema::table_of(table)?);
        writes.deletes.push((client.prepare_cached(&sql).await.map_err(failed)?, keys));
    }
    Ok(writes)
}

/// Second round trip: everything up to COMMIT, pipelined. If a statement fails, COMMIT rolls back.
async fn write(client: &Object, prepared: &Prepared) -> Result<(), Error> {
    let Some(writes) = &prepared.writes else {
        return client.batch_execute("ROLLBACK").await.map_err(failed);
    };
    let last = i64::try_from(prepared.position.0).unwrap_or(i64::MAX);
    let payload = prepared.position.0.to_string();
    let puts =
        try_join_all(writes.puts.iter().map(|(statement, keys, values)| async move {
            client.execute(statement, &[keys, values]).await
        }));
    let deletes = try_join_all(
        writes
            .deletes
            .iter()
            .map(|(statement, keys)| async move { client.execute(statement, &[keys]).await }),
    );
    let move_parameters: [&(dyn ToSql + Sync); 1] = [&last];
    let notify_parameters: [&(dyn ToSql + Sync); 2] = [&CHANNEL, &payload];
    let moved = client.execute(&writes.move_position, &move_parameters);
    let notified = client.execute(&writes.notify, &notify_parameters);
    let committed = client.batch_execute("COMMIT");
    // Polled, and so sent, in this order.
    futures::try_join!(puts, deletes, moved, notified, committed).map(drop).map_err(failed)
}
