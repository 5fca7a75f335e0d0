//! Cross-signing keys and the signatures that are made with them (Client-Server API, "Cross-signing").

use std::collections::BTreeMap;

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    log::LogEntry,
    tables::{
        CROSS_SIGNING_KEYS, CrossSigningKeyRecord, CrossSigningUsage, DEVICE_KEYS, DEVICES, DeviceKeysRecord,
        KEY_SIGNATURES, KeySignatureRecord, USER_STREAM, UserChange,
    },
};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use crate::{
    Error, Session, Users,
    device_lists::{Change, Told},
    keys::{
        Json, SIGNED_KEYS_SIZE_MAX,
        query::parse,
        signed::{self, ed25519_keys, is_public_key, is_same, is_signed},
    },
    transaction::transact,
};

use CrossSigningUsage::{Master, SelfSigning, UserSigning};

/// `POST /keys/device_signing/upload`, without `auth`.
#[derive(Clone, Debug, Default)]
pub struct CrossSigningKeys {
    pub master: Option<Json>,
    pub self_signing: Option<Json>,
    pub user_signing: Option<Json>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CrossSigningError {
    #[error(
        "the {0} key is not one: it needs the user's id, its usage and exactly one ed25519 key named after itself"
    )]
    Key(&'static str),
    #[error("there is no master key to sign these keys")]
    NoMaster,
    #[error("the {0} key is not signed by the master key")]
    Signature(&'static str),
    #[error("the {0} key is already the id of a device")]
    IdInUse(&'static str),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why a signature was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefusal {
    #[error("the server does not know this key")]
    Unknown,
    #[error("what is signed is not the key that the server knows")]
    Different,
    #[error("the signature is missing or wrong")]
    Invalid,
}

/// User id and key id of each signature that was not taken.
pub type SignatureFailures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureRefusal>>;

impl CrossSigningKeys {
    fn uploaded(&self) -> impl Iterator<Item = (CrossSigningUsage, &Json)> {
        let all =
            [(Master, &self.master), (SelfSigning, &self.self_signing), (UserSigning, &self.user_signing)];
        all.into_iter().filter_map(|(usage, key)| Some((usage, key.as_ref()?)))
    }
}

impl Users {
    /// Whether the upload replaces a key: only with the user's password then.
    pub async fn replaces_cross_signing(
        &self,
        user: UserNid,
        keys: &CrossSigningKeys,
    ) -> Result<bool, Error> {
        if self.cross_signing_key(user, Master).await?.is_none() {
            return Ok(false);
        }
        for (usage, key) in keys.uploaded() {
            let held = self.cross_signing_key(user, usage).await?;
            if held.as_ref().and_then(public_key) != public_key(key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub async fn upload_cross_signing(
        &self,
        session: &Session,
        keys: &CrossSigningKeys,
    ) -> Result<(), CrossSigningError> {
        for (usage, key) in keys.uploaded() {
            check_key(&session.user_id, usage, key)?;
        }
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            self.put_cross_signing(&mut batch, session, keys).await?;
            Ok((batch, ()))
        })
        .await
    }

    async fn put_cross_signing(
        &self,
        batch: &mut Batch,
        session: &Session,
        keys: &CrossSigningKeys,
    ) -> Result<(), CrossSigningError> {
        let user = session.user;
        let held_master = self.cross_signing_key(user, Master).await?;
        let master = keys.master.as_ref().or(held_master.as_ref());
        let replaced = held_master.as_ref().and_then(public_key) != master.and_then(public_key);
        let mut changed = CrossSigningKeys::default();
        for (usage, key) in keys.uploaded() {
            self.check_signed(session, usage, key, master).await?;
            match usage {
                Master => changed.master = self.put_key(batch, session, usage, key).await?,
                SelfSigning => changed.self_signing = self.put_key(batch, session, usage, key).await?,
                UserSigning => changed.user_signing = self.put_key(batch, session, usage, key).await?,
            }
        }
        if replaced && held_master.is_some() {
            // What the old master key signed is not the user's any more.
            let kept: Vec<_> = keys.uploaded().map(|(usage, _)| usage).collect();
            let gone = CrossSigningUsage::ALL.into_iter().filter(|usage| !kept.contains(usage));
            gone.for_each(|usage| batch.delete(&CROSS_SIGNING_KEYS, &(user, usage as u8)));
        }
        if !batch.is_empty() {
            let (master, self_signing) = (changed.master, changed.self_signing);
            let change = Change::CrossSigning { master, self_signing };
            self.note_device_list(batch, user, &[change], Told::Everybody).await?;
        }
        Ok(())
    }

    async fn check_signed(
        &self,
        session: &Session,
        usage: CrossSigningUsage,
        key: &Json,
        master: Option<&Json>,
    ) -> Result<(), CrossSigningError> {
        let public = public_key(key).ok_or(CrossSigningError::Key(usage.as_str()))?;
        let id = (session.user, public.to_owned());
        if self.view.store.get(&DEVICES, &id).await.map_err(Error::from)?.is_some() {
            return Err(CrossSigningError::IdInUse(usage.as_str()));
        }
        if usage == Master {
            return Ok(());
        }
        let master = master.and_then(public_key).ok_or(CrossSigningError::NoMaster)?;
        match is_signed(key, &session.user_id, master, master) {
            true => Ok(()),
            false => Err(CrossSigningError::Signature(usage.as_str())),
        }
    }

    /// What is held afterwards if that is news.
    async fn put_key(
        &self,
        batch: &mut Batch,
        session: &Session,
        usage: CrossSigningUsage,
        key: &Json,
    ) -> Result<Option<Json>, Error> {
        let row = (session.user, usage as u8);
        let held = self.view.store.get(&CROSS_SIGNING_KEYS, &row).await?;
        let mut new = key.clone();
        if let Some(held) = &held {
            let before = parse(&held.json)?;
            if public_key(&before) == public_key(key) {
                new = before.clone();
                add_signatures(&mut new, key, &session.user_id);
                if new == before {
                    return Ok(None);
                }
            }
        }
        batch.require_unchanged(&CROSS_SIGNING_KEYS, &row, held.as_ref());
        let json = Value::Object(new.clone()).to_string();
        batch.put(&CROSS_SIGNING_KEYS, &row, &CrossSigningKeyRecord { json });
        Ok(Some(new))
    }

    /// `POST /keys/signatures/upload`: user id to key id to signed key.
    pub async fn upload_signatures(
        &self,
        session: &Session,
        signed: &BTreeMap<OwnedUserId, BTreeMap<String, Json>>,
    ) -> Result<SignatureFailures, Error> {
        let mut failures = SignatureFailures::new();
        for (user_id, keys) in signed {
            for (key_id, key) in keys {
                let taken = transact(&self.view.store, || async {
                    let mut batch = Batch::new();
                    let taken = self.put_signature(&mut batch, session, user_id, key_id, key).await?;
                    Ok::<_, Error>((if taken.is_ok() { batch } else { Batch::new() }, taken))
                });
                if let Err(refusal) = taken.await? {
                    failures.entry(user_id.clone()).or_default().insert(key_id.clone(), refusal);
                }
            }
        }
        Ok(failures)
    }

    async fn put_signature(
        &self,
        batch: &mut Batch,
        session: &Session,
        owner: &UserId,
        key_id: &str,
        key: &Json,
    ) -> Result<Result<(), SignatureRefusal>, Error> {
        if *owner != *session.user_id {
            return self.sign_other_user(batch, session, owner, key_id, key).await;
        }
        match self.cross_signing_key(session.user, Master).await? {
            Some(master) if public_key(&master) == Some(key_id) => {
                self.sign_own_master(batch, session, master, key).await
            }
            _ => self.sign_own_device(batch, session, key_id, key).await,
        }
    }

    /// With the self-signing key.
    async fn sign_own_device(
        &self,
        batch: &mut Batch,
        session: &Session,
        device_id: &str,
        key: &Json,
    ) -> Result<Result<(), SignatureRefusal>, Error> {
        let row = (session.user, device_id.to_owned());
        let Some(held) = self.view.store.get(&DEVICE_KEYS, &row).await? else {
            return Ok(Err(SignatureRefusal::Unknown));
        };
        let mut keys = parse(&held.json)?;
        if !is_same(&keys, key) {
            return Ok(Err(SignatureRefusal::Different));
        }
        let signer = self.cross_signing_key(session.user, SelfSigning).await?;
        let Some(signer) = signer.as_ref().and_then(public_key) else {
            return Ok(Err(SignatureRefusal::Invalid));
        };
        if !is_signed(key, &session.user_id, signer, signer) {
            return Ok(Err(SignatureRefusal::Invalid));
        }
        let before = keys.clone();
        copy_signature(&mut keys, key, &session.user_id, signer);
        if keys != before {
            let json = Value::Object(keys).to_string();
            batch.require_equal(&DEVICE_KEYS, &row, &held);
            batch.put(&DEVICE_KEYS, &row, &DeviceKeysRecord { json: json.clone(), ..held });
            let change = Change::Device { device_id: row.1, keys: Some(json) };
            self.note_device_list(batch, session.user, &[change], Told::Everybody).await?;
        }
        Ok(Ok(()))
    }

    /// With keys of the user's devices.
    async fn sign_own_master(
        &self,
        batch: &mut Batch,
        session: &Session,
        master: Json,
        key: &Json,
    ) -> Result<Result<(), SignatureRefusal>, Error> {
        if !is_same(&master, key) {
            return Ok(Err(SignatureRefusal::Different));
        }
        let mut signed_master = master.clone();
        let mut good = 0;
        for (device_id, record) in self.device_keys(session.user, &[]).await? {
            let keys = parse(&record.json)?;
            let own = ed25519_keys(&keys).find(|(id, _)| *id == device_id);
            if own.is_some_and(|(id, public)| is_signed(key, &session.user_id, id, public)) {
                copy_signature(&mut signed_master, key, &session.user_id, &device_id);
                good += 1;
            }
        }
        if good == 0 {
            return Ok(Err(SignatureRefusal::Invalid));
        }
        if signed_master != master {
            let changed = self.put_key(batch, session, Master, &signed_master).await?;
            let change = Change::CrossSigning { master: changed, self_signing: None };
            self.note_device_list(batch, session.user, &[change], Told::Everybody).await?;
        }
        Ok(Ok(()))
    }

    /// With the user-signing key: the master key of somebody else. Only the signer will see it.
    async fn sign_other_user(
        &self,
        batch: &mut Batch,
        session: &Session,
        owner: &UserId,
        key_id: &str,
        key: &Json,
    ) -> Result<Result<(), SignatureRefusal>, Error> {
        let Some(owner) = self.view.interner.lookup_user(owner).await? else {
            return Ok(Err(SignatureRefusal::Unknown));
        };
        let master = self.cross_signing_key(owner, Master).await?;
        let Some(master) = master.filter(|master| public_key(master) == Some(key_id)) else {
            return Ok(Err(SignatureRefusal::Unknown));
        };
        if !is_same(&master, key) {
            return Ok(Err(SignatureRefusal::Different));
        }
        let signer = self.cross_signing_key(session.user, UserSigning).await?;
        let signer = signer.as_ref().and_then(public_key);
        let signed = signer.filter(|signer| is_signed(key, &session.user_id, signer, signer));
        let name = signed.map(|signer| format!("{}{signer}", signed::ED25519));
        let Some((name, signature)) = name.and_then(|name| {
            let signature = signed::signature(key, &session.user_id, &name)?.to_owned();
            Some((name, signature))
        }) else {
            return Ok(Err(SignatureRefusal::Invalid));
        };
        let row = (session.user, owner, key_id.to_owned(), name);
        let held = self.view.store.get(&KEY_SIGNATURES, &row).await?;
        let new = KeySignatureRecord { signature };
        if held.as_ref() != Some(&new) {
            batch.require_unchanged(&KEY_SIGNATURES, &row, held.as_ref());
            batch.put(&KEY_SIGNATURES, &row, &new);
            let position = batch.log(&LogEntry::Signed { user: session.user });
            batch.put(&USER_STREAM, &(session.user, position), &UserChange::Signed { user: owner });
        }
        Ok(Ok(()))
    }
}

/// The one key of a cross-signing key object.
pub(crate) fn public_key(key: &Json) -> Option<&str> {
    ed25519_keys(key).next().map(|(_, public)| public)
}

pub(crate) fn is_cross_signing_key(user_id: &UserId, usage: CrossSigningUsage, key: &Json) -> bool {
    let usages = key.get("usage").and_then(Value::as_array);
    let has_usage = usages.is_some_and(|usages| usages.iter().any(|u| u.as_str() == Some(usage.as_str())));
    let mut keys = ed25519_keys(key);
    let one = keys.next().is_some_and(|(name, public)| name == public && is_public_key(public));
    let all = key.get("keys").and_then(Value::as_object).map_or(0, Json::len);
    let owned = key.get("user_id").and_then(Value::as_str) == Some(user_id.as_str());
    let fits = Value::Object(key.clone()).to_string().len() <= SIGNED_KEYS_SIZE_MAX;
    owned && has_usage && one && all == 1 && fits
}

fn check_key(user_id: &UserId, usage: CrossSigningUsage, key: &Json) -> Result<(), CrossSigningError> {
    match is_cross_signing_key(user_id, usage, key) {
        true => Ok(()),
        false => Err(CrossSigningError::Key(usage.as_str())),
    }
}

fn copy_signature(to: &mut Json, from: &Json, signer: &UserId, key_id: &str) {
    let name = format!("{}{key_id}", signed::ED25519);
    if let Some(signature) = signed::signature(from, signer, &name) {
        signed::add_signature(to, signer, &name, signature);
    }
}

fn add_signatures(to: &mut Json, from: &Json, signer: &UserId) {
    for (name, signature) in signed::signatures_of(from, signer) {
        signed::add_signature(to, signer, name, signature);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        keys::{
            query::Asker,
            signed::tests::Key,
            tests::{device_keys, object, session},
            upload::KeyUpload,
        },
        testing::World,
    };

    struct Keys {
        master: Key,
        self_signing: Key,
        user_signing: Key,
    }

    impl Keys {
        fn new() -> Self {
            Self { master: Key::new(), self_signing: Key::new(), user_signing: Key::new() }
        }

        fn upload(&self, user_id: &UserId) -> CrossSigningKeys {
            let signed = |key: &Key, usage: &str| {
                let mut object = cross_signing_key(user_id, key, usage);
                self.master.sign(&mut object, user_id, &self.master.public());
                object
            };
            CrossSigningKeys {
                master: Some(cross_signing_key(user_id, &self.master, "master")),
                self_signing: Some(signed(&self.self_signing, "self_signing")),
                user_signing: Some(signed(&self.user_signing, "user_signing")),
            }
        }
    }

    fn cross_signing_key(user_id: &UserId, key: &Key, usage: &str) -> Json {
        let name = format!("ed25519:{}", key.public());
        object(json!({ "user_id": user_id, "usage": [usage], "keys": { name: key.public() } }))
    }

    fn signatures(
        user_id: &UserId,
        key_id: &str,
        key: Json,
    ) -> BTreeMap<OwnedUserId, BTreeMap<String, Json>> {
        [(user_id.to_owned(), [(key_id.to_owned(), key)].into())].into()
    }

    #[test]
    fn keys_that_are_not_what_they_should_be_are_refused() {
        let world = World::new();
        world.run(async {
            let session = session(&world, "alice").await;
            let (keys, user_id) = (Keys::new(), session.user_id.clone());
            let upload =
                async |keys: CrossSigningKeys| world.users.upload_cross_signing(&session, &keys).await;
            let whole = || keys.upload(&user_id);
            let without_master = CrossSigningKeys { master: None, ..whole() };
            assert!(matches!(upload(without_master).await, Err(CrossSigningError::NoMaster)));
            let foreign = cross_signing_key(ruma::user_id!("@bob:example.org"), &keys.master, "master");
            let wrong_usage = cross_signing_key(&user_id, &keys.master, "self_signing");
            let mut two_keys = cross_signing_key(&user_id, &keys.master, "master");
            let other = Key::new().public();
            two_keys["keys"][format!("ed25519:{other}")] = json!(other);
            let mut misnamed = cross_signing_key(&user_id, &keys.master, "master");
            misnamed["keys"] = json!({ "ed25519:name": keys.master.public() });
            for master in [foreign, wrong_usage, two_keys, misnamed, Json::new()] {
                let refused = upload(CrossSigningKeys { master: Some(master), ..whole() }).await;
                assert!(matches!(refused, Err(CrossSigningError::Key("master"))));
            }
            let unsigned = cross_signing_key(&user_id, &keys.user_signing, "user_signing");
            let refused = upload(CrossSigningKeys { user_signing: Some(unsigned), ..whole() }).await;
            assert!(matches!(refused, Err(CrossSigningError::Signature("user_signing"))));
            let device = crate::DeviceRequest {
                device_id: Some(keys.master.public()),
                ..crate::DeviceRequest::default()
            };
            world.users.login_with_password("alice", "alice's password", &device).await.unwrap();
            assert!(matches!(upload(whole()).await, Err(CrossSigningError::IdInUse("master"))));
        });
    }

    #[test]
    fn what_replaces_a_key_needs_confirmation() {
        let world = World::new();
        world.run(async {
            let session = session(&world, "alice").await;
            let (keys, user_id) = (Keys::new(), session.user_id.clone());
            let whole = || keys.upload(&user_id);
            let replaces = async |keys: &CrossSigningKeys| {
                world.users.replaces_cross_signing(session.user, keys).await.unwrap()
            };
            assert!(!replaces(&whole()).await, "the first");
            world.users.upload_cross_signing(&session, &whole()).await.unwrap();
            assert!(!replaces(&whole()).await, "the same");
            let position = world.view.store.position();
            world.users.upload_cross_signing(&session, &whole()).await.unwrap();
            assert_eq!(world.view.store.position(), position);
            let new = Keys::new().upload(&user_id);
            assert!(replaces(&new).await);
            let other = CrossSigningKeys { user_signing: new.user_signing.clone(), ..whole() };
            assert!(replaces(&other).await);
            let master = CrossSigningKeys { master: new.master, ..CrossSigningKeys::default() };
            world.users.upload_cross_signing(&session, &master).await.unwrap();
            let left = world.users.cross_signing_key(session.user, SelfSigning).await.unwrap();
            assert_eq!(left, None, "it was signed by the old one");
        });
    }

    #[test]
    fn signatures_are_checked_and_shown_to_whom_they_concern() {
        let world = World::new();
        world.run(async {
            let (alice, bob) = (session(&world, "alice").await, session(&world, "bob").await);
            let (of_alice, of_bob, device) = (Keys::new(), Keys::new(), Key::new());
            world.users.upload_cross_signing(&alice, &of_alice.upload(&alice.user_id)).await.unwrap();
            world.users.upload_cross_signing(&bob, &of_bob.upload(&bob.user_id)).await.unwrap();
            let keys = device_keys(&alice, &device);
            let upload = KeyUpload { device_keys: Some(keys.clone()), ..KeyUpload::default() };
            world.users.upload_keys(&alice, &upload).await.unwrap();
            let sign = async |owner: &UserId, key_id: &str, key: Json| {
                let failures =
                    world.users.upload_signatures(&alice, &signatures(owner, key_id, key)).await.unwrap();
                failures.get(owner).map(|keys| keys[key_id])
            };

            // The own device, with the self-signing key.
            let (id, device_id) = (of_alice.self_signing.public(), alice.device_id.as_str());
            assert_eq!(sign(&alice.user_id, "NONE", keys.clone()).await, Some(SignatureRefusal::Unknown));
            assert_eq!(sign(&alice.user_id, device_id, keys.clone()).await, Some(SignatureRefusal::Invalid));
            let mut signed = keys.clone();
            Key::new().sign(&mut signed, &alice.user_id, &id);
            assert_eq!(sign(&alice.user_id, device_id, signed).await, Some(SignatureRefusal::Invalid));
            let mut signed = keys.clone();
            signed.insert("more".to_owned(), json!(1));
            of_alice.self_signing.sign(&mut signed, &alice.user_id, &id);
            assert_eq!(sign(&alice.user_id, device_id, signed).await, Some(SignatureRefusal::Different));
            let mut signed = keys.clone();
            of_alice.self_signing.sign(&mut signed, &alice.user_id, &id);
            assert_eq!(sign(&alice.user_id, device_id, signed.clone()).await, None);
            world.users.upload_keys(&alice, &upload).await.unwrap();
            let list = world.users.device_list(&alice.user_id).await.unwrap().unwrap();
            let seen = &list.keys.devices[device_id];
            assert_eq!(seen["signatures"], signed["signatures"], "an upload of the same keys keeps it");

            // The own master key, with the device.
            let master = cross_signing_key(&alice.user_id, &of_alice.master, "master");
            let id = of_alice.master.public();
            assert_eq!(sign(&alice.user_id, &id, master.clone()).await, Some(SignatureRefusal::Invalid));
            let mut signed = master;
            device.sign(&mut signed, &alice.user_id, device_id);
            assert_eq!(sign(&alice.user_id, &id, signed).await, None);
            let list = world.users.device_list(&alice.user_id).await.unwrap().unwrap();
            let name = format!("ed25519:{device_id}");
            assert!(list.keys.master.unwrap()["signatures"][alice.user_id.as_str()][&name].is_string());

            // Bob's master key, with the user-signing key.
            let master = cross_signing_key(&bob.user_id, &of_bob.master, "master");
            let (id, signer) = (of_bob.master.public(), of_alice.user_signing.public());
            assert_eq!(sign(&bob.user_id, "NONE", master.clone()).await, Some(SignatureRefusal::Unknown));
            assert_eq!(sign(&bob.user_id, &id, master.clone()).await, Some(SignatureRefusal::Invalid));
            let mut signed = master;
            of_alice.user_signing.sign(&mut signed, &alice.user_id, &signer);
            assert_eq!(sign(&bob.user_id, &id, signed).await, None);
            let seen = async |by: &Session| {
                let asker = Asker::Local { user: by.user, user_id: &by.user_id };
                let keys = world.users.keys_of(bob.user, &bob.user_id, &[], asker).await.unwrap();
                (keys.master.unwrap().contains_key("signatures"), keys.user_signing.is_some())
            };
            assert_eq!(seen(&alice).await, (true, false));
            assert_eq!(seen(&bob).await, (false, true), "only alice sees what alice signed");
        });
    }
}
