use std::time::Duration;

use windlass_core::{KeyId, LiveKey, NewKey, Scope, Store};

use super::support::{HOUR, Timed};

const MINUTE: Duration = Duration::from_secs(60);

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn key(id: &KeyId, hash: u8) -> NewKey {
    NewKey {
        id: id.clone(),
        hash: [hash; 32],
        name: "ci 'ü'\0".into(),
        scopes: [Scope::Read, Scope::Enqueue].into_iter().collect(),
        tenant: Some("acme".parse().unwrap()),
        expires_at: None,
    }
}

async fn live(store: &dyn Store) -> Vec<LiveKey> {
    let mut keys = store.keys().live_keys().await.unwrap();
    keys.sort_by(|one, other| one.id.cmp(&other.id));
    keys
}

/// The secrets that are good now, by the bytes that they consist of in these tests.
async fn hashes(store: &dyn Store) -> Vec<u8> {
    live(store).await.iter().flat_map(|key| &key.hashes).map(|hash| hash[0]).collect()
}

/// A key is good until it expires or is revoked, on every client, and stays in the list; a call may be repeated.
pub async fn api_keys_are_good_until_their_end(timed: Timed) {
    let Timed { case, clock } = timed;
    let (one, other) = (id("00000000000a"), id("00000000000b"));
    let (keys, elsewhere) = (case.store.keys(), case.other.keys());
    assert_eq!(live(&*case.store).await, []);
    let expires_at = clock.now() + HOUR;
    for _ in 0..2 {
        keys.create_key(&key(&one, 1)).await.unwrap();
        keys.create_key(&NewKey { expires_at: Some(expires_at), tenant: None, ..key(&other, 2) })
            .await
            .unwrap();
    }
    // Not another's key under the same id.
    keys.create_key(&key(&one, 3)).await.unwrap();
    let scopes = key(&one, 1).scopes;
    let tenant = Some("acme".parse().unwrap());
    let first = LiveKey { id: one.clone(), hashes: vec![[1; 32]], scopes, tenant: tenant.clone() };
    let second = LiveKey { id: other.clone(), hashes: vec![[2; 32]], scopes, tenant: None };
    assert_eq!(live(&*case.other).await, [first.clone(), second]);

    clock.advance(HOUR);
    assert_eq!(live(&*case.store).await, [first]);
    for _ in 0..2 {
        assert!(elsewhere.revoke_key(&one).await.unwrap());
        clock.advance(MINUTE);
    }
    assert_eq!(live(&*case.store).await, []);
    assert!(!keys.revoke_key(&id("00000000000c")).await.unwrap());
    let all = keys.all_keys().await.unwrap();
    let [revoked, expired] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((&revoked.id, &revoked.tenant, revoked.scopes), (&one, &tenant, scopes));
    assert!(revoked.name.starts_with("ci 'ü'"), "{revoked:?}");
    assert_eq!(revoked.revoked_at, Some(expires_at), "the first time counts");
    assert_eq!((&expired.id, expired.expires_at, expired.revoked_at), (&other, Some(expires_at), None));
}

/// The secret before the newest stays good for a while. Uses are noted once a minute.
pub async fn api_keys_are_rotated(timed: Timed) {
    let Timed { case, clock } = timed;
    let (one, nobody) = (id("00000000000a"), id("00000000000c"));
    let keys = case.store.keys();
    keys.create_key(&key(&one, 1)).await.unwrap();
    for _ in 0..2 {
        assert!(keys.rotate_key(&one, [2; 32], HOUR).await.unwrap());
        assert_eq!(hashes(&*case.other).await, [2, 1]);
        clock.advance(MINUTE);
    }
    assert!(!keys.rotate_key(&nobody, [2; 32], HOUR).await.unwrap());
    let listed = &keys.all_keys().await.unwrap()[0];
    assert_eq!(listed.old_until, Some(clock.now() + HOUR - 2 * MINUTE));
    clock.advance(HOUR - 2 * MINUTE);
    assert_eq!(hashes(&*case.other).await, [2]);
    assert_eq!(keys.all_keys().await.unwrap()[0].old_until, None);

    // At once, and with an older one still good.
    assert!(keys.rotate_key(&one, [3; 32], HOUR).await.unwrap());
    assert!(keys.rotate_key(&one, [4; 32], Duration::ZERO).await.unwrap());
    assert_eq!(hashes(&*case.other).await, [4]);

    let used = async || keys.all_keys().await.unwrap()[0].last_used_at;
    assert_eq!(used().await, None);
    let first = clock.now();
    keys.keys_used(&[one.clone(), nobody]).await.unwrap();
    assert_eq!(used().await, Some(first));
    clock.advance(MINUTE / 2);
    keys.keys_used(std::slice::from_ref(&one)).await.unwrap();
    assert_eq!(used().await, Some(first));
    clock.advance(MINUTE / 2);
    keys.keys_used(std::slice::from_ref(&one)).await.unwrap();
    assert_eq!(used().await, Some(clock.now()));

    assert!(keys.revoke_key(&one).await.unwrap());
    assert!(!keys.rotate_key(&one, [5; 32], HOUR).await.unwrap());
    assert_eq!(hashes(&*case.other).await, Vec::<u8>::new());
}
