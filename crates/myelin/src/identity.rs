//! What a server is, once and for all: its name and its signing key, both tied to the store.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use myelin_core::Env;
use myelin_dag::signing::SigningKey;
use myelin_store::{
    Batch, CommitError, Store,
    tables::{META, META_SERVER_NAME, META_SIGNING_KEY, OLD_SIGNING_KEYS, OldSigningKeyRecord},
};
use ruma::ServerName;

/// Beside an embedded store.
const KEY_FILE: &str = "signing.key";
/// Only the owner may read or write.
const KEY_MODE: u32 = 0o600;

/// Where the key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    File(PathBuf),
    /// In the store itself, where every node of a database finds it.
    Store,
}

impl KeyPlace {
    /// `directory` is that of an embedded store.
    pub fn of(directory: Option<&Path>) -> Self {
        directory.map_or(Self::Store, |directory| Self::File(directory.join(KEY_FILE)))
    }
}

pub struct Identity {
    pub signing_key: SigningKey,
}

/// Makes sure that the store belongs to `name`, and loads the key; on the first start claims the store and makes the
/// key. The key comes first: a store that is claimed has its key, whatever happens in between.
pub async fn establish(
    store: &Store,
    place: &KeyPlace,
    name: &ServerName,
    env: &Env,
) -> anyhow::Result<Identity> {
    let first_start = match owner(store).await? {
        None => true,
        Some(owner) if owner == name.as_str() => false,
        Some(owner) => bail!(
            "this store belongs to the server '{owner}', but server.name is '{name}'. The name is part of every user \
             id and event and cannot be changed: set server.name = \"{owner}\", or give the new server a store of its \
             own (store.uri)"
        ),
    };
    let signing_key = match load_key(store, place).await? {
        Some(key) => key,
        None if first_start => make_key(store, place, env).await?,
        None => bail!(
            "the signing key is gone from {}: without it this server cannot prove that it is {name}. Restore it from a \
             backup; if it is lost for good, put a new one there (a line 'ed25519 a_1 <base64 of 32 random bytes>')",
            place.describe()
        ),
    };
    if first_start {
        let mut batch = Batch::new();
        let (key, value) = (META_SERVER_NAME.to_owned(), name.as_str().as_bytes().to_vec());
        batch.require_absent(&META, &key);
        batch.put(&META, &key, &value);
        store.commit(batch).await.context("the server name could not be stored")?;
    }
    Ok(Identity { signing_key })
}

/// The server name that a store belongs to.
pub async fn owner(store: &Store) -> anyhow::Result<Option<String>> {
    let stored = store.get(&META, &META_SERVER_NAME.to_owned()).await?;
    stored
        .map(|bytes| String::from_utf8(bytes).context("the server name in the store is damaged"))
        .transpose()
}

/// Whether anybody but the owner may read the key file; `false` if there is none.
pub fn is_exposed(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

impl KeyPlace {
    fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Store => "the store".to_owned(),
        }
    }
}

pub async fn load_key(store: &Store, place: &KeyPlace) -> anyhow::Result<Option<SigningKey>> {
    let text = match place {
        KeyPlace::Store => {
            store.get(&META, &META_SIGNING_KEY.to_owned()).await?.map(String::from_utf8).transpose()?
        }
        KeyPlace::File(path) => match fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the signing key {}", path.display()));
            }
        },
    };
    let parse =
        |text: String| SigningKey::from_text(&text).with_context(|| format!("in {}", place.describe()));
    text.map(parse).transpose()
}

fn new_key(env: &Env) -> anyhow::Result<SigningKey> {
    let mut seed = [0; 32];
    env.rng.fill(&mut seed);
    Ok(SigningKey::from_seed(&format!("a_{}", env.random_string(4)), seed)?)
}

async fn make_key(store: &Store, place: &KeyPlace, env: &Env) -> anyhow::Result<SigningKey> {
    let key = new_key(env)?;
    keep_key(store, place, &key).await?;
    // Of several nodes one was first: its key is the server's.
    load_key(store, place).await?.context("the signing key vanished")
}

/// Key ids before and after.
#[derive(Debug)]
pub struct Rotated {
    pub old: String,
    pub new: String,
}

/// Replaces the signing key. The old one is remembered first: a crash in between leaves a key that is in use and also
/// among the old ones, which does no harm, never one that nobody can verify.
pub async fn rotate(store: &Store, place: &KeyPlace, env: &Env) -> anyhow::Result<Rotated> {
    let old =
        load_key(store, place).await?.context("the signing key is gone: there is nothing to replace")?;
    let new = new_key(env)?;
    let mut batch = Batch::new();
    let record = OldSigningKeyRecord { public_key: old.public_key(), expired_ms: env.now_ms() };
    batch.put(&OLD_SIGNING_KEYS, &old.key_id().to_owned(), &record);
    if *place == KeyPlace::Store {
        let name = META_SIGNING_KEY.to_owned();
        batch.require_equal(&META, &name, &old.to_text().into_bytes());
        batch.put(&META, &name, &new.to_text().into_bytes());
    }
    store.commit(batch).await.context("the old key could not be stored")?;
    if let KeyPlace::File(path) = place {
        write_key(path, &new.to_text())
            .with_context(|| format!("cannot write the signing key {}", path.display()))?;
    }
    Ok(Rotated { old: old.key_id().to_owned(), new: new.key_id().to_owned() })
}

/// Puts a key where there is none; in the store, one that is there stays.
pub async fn keep_key(store: &Store, place: &KeyPlace, key: &SigningKey) -> anyhow::Result<()> {
    match place {
        KeyPlace::File(path) => write_key(path, &key.to_text())
            .with_context(|| format!("cannot write the signing key {}", path.display())),
        KeyPlace::Store => {
            let mut batch = Batch::new();
            let name = META_SIGNING_KEY.to_owned();
            batch.require_absent(&META, &name);
            batch.put(&META, &name, &key.to_text().into_bytes());
            match store.commit(batch).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
                Err(error) => Err(error).context("the signing key could not be stored"),
            }
        }
    }
}

/// The file appears complete and durable, or not at all.
fn write_key(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = path.with_extension("key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(KEY_MODE).open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(KEY_MODE))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use myelin_store::memory::{Memory, MemoryDisk};
    use ruma::server_name;

    use super::*;

    fn fresh() -> Store {
        Store::new(Arc::new(Memory::open(MemoryDisk::default())))
    }

    #[tokio::test]
    async fn the_key_is_made_once_and_kept_private() {
        let (directory, store, env) =
            (tempfile::tempdir().expect("a directory"), fresh(), crate::system::env());
        let name = server_name!("example.org");
        for place in [KeyPlace::of(Some(directory.path())), KeyPlace::Store] {
            let store = if place == KeyPlace::Store { fresh() } else { store.clone() };
            let first = establish(&store, &place, name, &env).await.expect("a first start");
            let second = establish(&store, &place, name, &env).await.expect("a second start");
            assert_eq!(first.signing_key.to_text(), second.signing_key.to_text());
        }
        let file = directory.path().join(KEY_FILE);
        assert!(!is_exposed(&file));
        assert!(fs::read_to_string(&file).expect("a key").starts_with("ed25519 a_"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(is_exposed(&file));
    }

    #[tokio::test]
    async fn a_replaced_key_is_remembered_by_its_public_half() {
        let (directory, env) = (tempfile::tempdir().expect("a directory"), crate::system::env());
        for place in [KeyPlace::of(Some(directory.path())), KeyPlace::Store] {
            let (store, name) = (fresh(), server_name!("example.org"));
            let before = establish(&store, &place, name, &env).await.expect("a first start").signing_key;
            let rotated = rotate(&store, &place, &env).await.expect("a new key");
            let after = establish(&store, &place, name, &env).await.expect("a start").signing_key;
            assert_eq!((&*rotated.old, &*rotated.new), (before.key_id(), after.key_id()));
            assert_ne!(before.public_key(), after.public_key());
            let old = myelin_federation::keys::own::old_keys(&store).await.expect("old keys");
            assert_eq!(old.len(), 1);
            assert_eq!((&*old[0].key_id, old[0].public_key), (before.key_id(), before.public_key()));
        }
    }

    #[tokio::test]
    async fn a_store_keeps_its_name() {
        let (store, env) = (fresh(), crate::system::env());
        establish(&store, &KeyPlace::Store, server_name!("a.org"), &env).await.expect("a first start");
        let refused = establish(&store, &KeyPlace::Store, server_name!("b.org"), &env).await;
        let message = refused.map(|_| ()).expect_err("another name").to_string();
        assert!(message.contains("belongs to the server 'a.org'"), "{message}");
    }

    #[tokio::test]
    async fn a_lost_key_is_not_replaced_silently_and_a_damaged_one_is_refused() {
        let (directory, store, env) =
            (tempfile::tempdir().expect("a directory"), fresh(), crate::system::env());
        let (place, name) = (KeyPlace::of(Some(directory.path())), server_name!("example.org"));
        establish(&store, &place, name, &env).await.expect("a first start");
        let file = directory.path().join(KEY_FILE);
        fs::remove_file(&file).expect("removed");
        let message =
            establish(&store, &place, name, &env).await.map(|_| ()).expect_err("no key").to_string();
        assert!(message.contains("the signing key is gone"), "{message}");
        fs::write(&file, "nonsense").expect("written");
        assert!(establish(&store, &place, name, &env).await.is_err());
    }
}
