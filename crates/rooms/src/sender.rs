use myelin_core::UserNid;
use myelin_store::tables::SentBy;
use ruma::OwnedUserId;

/// A local user who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub guest: bool,
    /// May redact own events, and leave (Client-Server API, "Account suspension").
    pub suspended: bool,
    /// Server administrators may do a little more (delete aliases).
    pub admin: bool,
}

/// The transaction id of a request (Client-Server API, "Transaction identifiers").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub device_id: String,
    pub transaction_id: String,
}

impl Transaction {
    pub(crate) fn sent_by(&self, sender: &Sender) -> SentBy {
        SentBy {
            user: sender.user,
            device_id: self.device_id.clone(),
            transaction_id: self.transaction_id.clone(),
        }
    }
}
