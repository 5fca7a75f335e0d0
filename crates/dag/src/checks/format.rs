//! Check 1: is a valid event, within the size limits, in the format of its room version.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{EventId, OwnedServerName, room_version_rules::RoomVersionRules};
use serde_json::value::RawValue;

use super::{Dropped, servers_to_sign, signatures::key_ids_of};
use crate::{Pdu, pdu::receive_signed};

/// Bytes that somebody calls a PDU.
#[derive(Debug, Clone, Copy)]
pub struct RawPdu<'a>(pub &'a RawValue);

/// An event by its form; nobody vouches for it yet.
#[derive(Debug, Clone)]
pub struct FormedPdu {
    pub(super) pdu: Pdu,
    /// What the signatures are over.
    pub(super) signed: String,
}

impl RawPdu<'_> {
    pub fn check_format(self, rules: &RoomVersionRules) -> Result<FormedPdu, Dropped> {
        let (pdu, signed) = receive_signed(self.0, rules)?;
        Ok(FormedPdu { pdu, signed })
    }
}

impl FormedPdu {
    pub fn event_id(&self) -> &EventId {
        &self.pdu.event_id
    }

    /// What the event claims. Nothing of it is vouched for.
    pub fn claims(&self) -> &Pdu {
        &self.pdu
    }

    /// The servers that must have signed.
    pub fn signing_servers(&self, rules: &RoomVersionRules) -> Result<BTreeSet<OwnedServerName>, Dropped> {
        Ok(servers_to_sign(&self.pdu, rules)?)
    }

    /// The servers that must have signed, each with the ids of the keys by which it claims to have done so.
    pub fn wanted_keys(
        &self,
        rules: &RoomVersionRules,
    ) -> Result<BTreeMap<OwnedServerName, Vec<String>>, Dropped> {
        let wanted = self.signing_servers(rules)?.into_iter().map(|server| {
            let ids = key_ids_of(&self.pdu.json, &server);
            (server, ids)
        });
        Ok(wanted.collect())
    }
}
