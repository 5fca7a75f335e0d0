//! Events made here that come into their room late: while somebody else was asked about them, the room went on.

use std::sync::Arc;

use myelin_dag::checks::VerifiedPdu;
use myelin_store::tables::SentBy;
use myelin_view::Event;

use super::{Incoming, links};
use crate::{Error, writer::Draft};

impl Draft<'_> {
    /// Takes it where it was made, as a branch of the room; `None` if it is not allowed there, or not any more.
    pub(crate) async fn take_late(
        &mut self,
        event: VerifiedPdu,
        sent_by: Option<SentBy>,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Ok((prev, auth)) = self.ancestors(event.pdu()).await? else { return Ok(None) };
        let state_before = self.state_after_all(&prev).await?;
        let (partial, incoming) = (self.room.partial, Incoming::from(event));
        let (pdu, verdict) = self.judge(&incoming, &auth, &state_before, partial).await?;
        if !verdict.is_accepted() {
            return Ok(None);
        }
        let auth = links(&auth, self.room.nid());
        self.take(pdu, &verdict, state_before, &auth, sent_by).await.map(Some)
    }
}
