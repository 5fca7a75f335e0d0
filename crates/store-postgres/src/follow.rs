//! Hears of other processes' commits: `LISTEN`, and a look now and then for what was not heard.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, future};
use myelin_core::Position;
use myelin_store::Error;
use tokio::sync::watch;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use crate::{connect::failed, schema};

/// The payload is the last position.
pub(crate) const CHANNEL: &str = "myelin_commits";
/// A notification that went missing is made up for after this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

pub(crate) type Announce = Arc<watch::Sender<Position>>;

/// Positions only go up: several tasks may announce.
pub(crate) fn announce(to: &watch::Sender<Position>, position: Position) {
    to.send_if_modified(|last| {
        let past = position > *last;
        *last = position.max(*last);
        past
    });
}

/// Runs until it is aborted.
pub(crate) async fn follow(config: Config, positions: Announce) {
    loop {
        if let Err(error) = listen(&config, &positions).await {
            tracing::warn!(%error, "other nodes' commits cannot be heard of; connecting again");
        }
        wait(RECONNECT_DELAY).await;
    }
}

async fn listen(config: &Config, positions: &Announce) -> Result<(), Error> {
    let (client, mut connection) = config.connect(NoTls).await.map_err(failed)?;
    let (heard, messages) = mpsc::unbounded();
    let driver = async move {
        let mut stream = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = stream.next().await {
            if let AsyncMessage::Notification(notification) = message {
                heard.unbounded_send(notification.payload().to_owned()).ok();
            }
        }
    };
    let work = async move {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(failed)?;
        keep_up(&client, messages, positions).await
    };
    // Ends when the connection does; the error is then that of the next query.
    let (result, ()) = future::join(work, driver).await;
    result
}

async fn keep_up(
    client: &Client,
    mut messages: mpsc::UnboundedReceiver<String>,
    positions: &Announce,
) -> Result<(), Error> {
    loop {
        announce(positions, schema::last_position(client).await?);
        let mut look = std::pin::pin!(wait(LOOK_INTERVAL));
        while let future::Either::Left((Some(payload), _)) =
            future::select(messages.next(), look.as_mut()).await
        {
            if let Ok(last) = payload.parse() {
                announce(positions, Position(last));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "waits for a server outside of any simulation")]
pub(crate) async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}
