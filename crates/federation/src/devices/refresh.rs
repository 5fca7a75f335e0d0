//! Fetches device lists that are marked as stale (Server-Server API, `GET /user/devices/{userId}`): one user of a server
//! after the other, servers side by side, with back-off. The marks are durable, so nothing is forgotten by a restart.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, StreamExt, select_biased, stream};
use myelin_store::tables::StaleDeviceListRecord;
use myelin_users::{
    Error,
    remote_devices::{RemoteDeviceList, StaleDeviceList},
};
use ruma::{OwnedServerName, UserId};

use super::Devices;
use crate::{Budget, RequestError};

const SERVERS_AT_ONCE: usize = 16;
/// After the first failure, and at most.
const BACKOFF_MS_MIN: u64 = 30_000;
const BACKOFF_MS_MAX: u64 = 3_600_000;
/// At the latest after this everything is looked at again.
const PAUSE: Duration = Duration::from_secs(60);
const BUDGET: Budget = Budget { timeout: Duration::from_secs(30), body_size_max: 8 * 1024 * 1024 };

impl Devices {
    pub(super) async fn run_refresh(&self) {
        loop {
            if let Err(error) = self.refresh_due().await {
                tracing::error!(%error, "device lists cannot be refreshed; trying again");
                self.view.env.clock.sleep(PAUSE).await;
            }
            let mut pause = self.view.env.clock.sleep(self.until_next_due().await).fuse();
            let marked = self.users.device_list_marked().fuse();
            futures::pin_mut!(marked);
            select_biased! {
                () = marked => {}
                () = pause => {}
            }
        }
    }

    async fn until_next_due(&self) -> Duration {
        let stale = self.users.stale_device_lists().await.unwrap_or_default();
        let now_ms = self.view.env.now_ms();
        let waits = stale.iter().map(|list| list.mark.retry_ms.saturating_sub(now_ms));
        waits.min().map_or(PAUSE, |ms| PAUSE.min(Duration::from_millis(ms.max(1))))
    }

    async fn refresh_due(&self) -> Result<(), Error> {
        let now_ms = self.view.env.now_ms();
        let mut by_server: BTreeMap<OwnedServerName, Vec<StaleDeviceList>> = BTreeMap::new();
        for list in self.users.stale_device_lists().await? {
            if list.mark.retry_ms <= now_ms {
                by_server.entry(list.user_id.server_name().to_owned()).or_default().push(list);
            }
        }
        let servers = stream::iter(by_server.into_values()).map(|lists| self.refresh_of_server(lists));
        let mut results = servers.buffer_unordered(SERVERS_AT_ONCE);
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    }

    /// Once the server does not answer, it is not asked for the rest.
    async fn refresh_of_server(&self, lists: Vec<StaleDeviceList>) -> Result<(), Error> {
        let mut silent = false;
        for list in lists {
            if !silent {
                match self.refresh(&list).await? {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::debug!(user = %list.user_id, %error, "a device list is fetched later");
                        silent = !error.is_refusal();
                    }
                }
            }
            self.users.put_off_device_list(list.user, self.later(&list.mark)).await?;
        }
        Ok(())
    }

    async fn refresh(&self, list: &StaleDeviceList) -> Result<Result<(), RequestError>, Error> {
        let StaleDeviceList { user, user_id, mark } = list;
        let fetched = match self.fetch(user_id).await {
            Ok(fetched) => fetched,
            // Nobody of this name, and so without devices.
            Err(RequestError::Status { errcode, .. }) if errcode == "M_NOT_FOUND" => {
                RemoteDeviceList::default()
            }
            Err(error) => return Ok(Err(error)),
        };
        self.users.store_device_list(*user, user_id, &fetched, Some(mark)).await?;
        Ok(Ok(()))
    }

    async fn fetch(&self, user_id: &UserId) -> Result<RemoteDeviceList, RequestError> {
        let uri = format!("/_matrix/federation/v1/user/devices/{}", path_segment(user_id.as_str()));
        self.client.get(user_id.server_name(), &uri, BUDGET).await
    }

    fn later(&self, mark: &StaleDeviceListRecord) -> StaleDeviceListRecord {
        let failures = mark.failures.saturating_add(1);
        let mut chance = [0; 8];
        self.view.env.rng.fill(&mut chance);
        let full = BACKOFF_MS_MIN.saturating_mul(1 << failures.min(16).saturating_sub(1)).min(BACKOFF_MS_MAX);
        let retry_ms = self.view.env.now_ms() + full / 2 + u64::from_le_bytes(chance) % (full / 2);
        StaleDeviceListRecord { failures, retry_ms, ..mark.clone() }
    }
}

fn path_segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
