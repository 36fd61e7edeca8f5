use std::{sync::Arc, time::Duration};

use chrono::{SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass::{
    ApiKey, Settings, Tenant, Timestamp,
    driver::{self, KeyId, KeyRecord, NewKey, Scope, Scopes, Store},
};

use crate::Failure;

/// Keys of the HTTP API: make, list, rotate, revoke. Works on the store itself, with the settings of the API.
///
/// API instances know of a change within 10 seconds.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
    /// Write JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key. It is shown once; the store keeps a hash
    Create {
        /// What people know it by
        #[arg(long)]
        name: String,
        /// What it may do: enqueue, read, operate, or admin, which is all of them (a comma-separated list)
        #[arg(long, required = true, value_delimiter = ',')]
        scope: Vec<Scope>,
        /// For whom; by default for everyone
        #[arg(long)]
        tenant: Option<Tenant>,
        /// When it ends by itself, such as 90d; by default never
        #[arg(long, value_parser = lifetime)]
        expires_in: Option<Duration>,
    },
    /// Show all keys there have been, without their secrets
    List,
    /// Give a key another secret, which is shown once. The one before it is good for a while
    Rotate {
        /// The key: the 12 digits after its wl_
        id: KeyId,
        /// How long the secret before is good
        #[arg(long, default_value = "24h", value_parser = lifetime)]
        grace: Duration,
    },
    /// End a key, with all its secrets
    Revoke {
        /// The key: the 12 digits after its wl_
        id: KeyId,
    },
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let most = Duration::from_secs(100 * 365 * 86_400);
    if lifetime > most { Err("at most a hundred years".into()) } else { Ok(lifetime) }
}

impl Keys {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let store = driver::open_store(settings.store_url.expose(), &settings.store_options()).await?;
        store.ping().await?;
        match self.command {
            Command::Create { name, scope, tenant, expires_in } => {
                let scopes = scope.into_iter().collect();
                create(&store, self.json, name, scopes, tenant, expires_in).await
            }
            Command::List => list(&store, self.json).await,
            Command::Rotate { id, grace } => rotate(&store, self.json, id, grace).await,
            Command::Revoke { id } => revoke(&store, self.json, id).await,
        }
    }
}

async fn create(
    store: &Arc<dyn Store>,
    json: bool,
    name: String,
    scopes: Scopes,
    tenant: Option<Tenant>,
    expires_in: Option<Duration>,
) -> Result<(), Failure> {
    let key = ApiKey::generate().map_err(Failure::running)?;
    let expires_at = expires_in.map(|lifetime| Utc::now() + lifetime);
    let new = NewKey { id: key.id().clone(), hash: key.hash(), name, scopes, tenant, expires_at };
    store.keys().create_key(&new).await?;
    if json {
        return write(&json!({
            "id": new.id, "key": key.expose(), "name": new.name, "scopes": names(new.scopes),
            "tenant": new.tenant, "expires_at": new.expires_at.map(written),
        }));
    }
    show(&key);
    Ok(())
}

async fn rotate(store: &Arc<dyn Store>, json: bool, id: KeyId, grace: Duration) -> Result<(), Failure> {
    let key = ApiKey::rotate(id).map_err(Failure::running)?;
    if !store.keys().rotate_key(key.id(), key.hash(), grace).await? {
        return Err(Failure::usage(format!("there is no key {}, or it has been revoked", key.id())));
    }
    if json {
        return write(&json!({"id": key.id(), "key": key.expose()}));
    }
    show(&key);
    println!("\nThe secret before it is good for {} more.", humantime::format_duration(grace));
    Ok(())
}

async fn revoke(store: &Arc<dyn Store>, json: bool, id: KeyId) -> Result<(), Failure> {
    if !store.keys().revoke_key(&id).await? {
        return Err(Failure::usage(format!("there is no key {id}")));
    }
    if json {
        return write(&json!({"id": id}));
    }
    println!("{id} has been revoked");
    Ok(())
}

async fn list(store: &Arc<dyn Store>, json: bool) -> Result<(), Failure> {
    let keys = store.keys().all_keys().await?;
    if json {
        return write(&json!({"keys": keys.iter().map(object).collect::<Vec<_>>()}));
    }
    let heads = ["id", "name", "scopes", "tenant", "state", "created", "last used", "expires"];
    let mut rows = vec![heads.map(ToOwned::to_owned)];
    let day = |time: Option<Timestamp>| {
        time.map_or("-".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string())
    };
    rows.extend(keys.iter().map(|key| {
        [
            key.id.to_string(),
            // What somebody has named a key must not move the cursor of a terminal.
            key.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
            key.scopes.to_string(),
            key.tenant.as_ref().map_or("-".to_owned(), ToString::to_string),
            state(key).to_owned(),
            day(Some(key.created_at)),
            day(key.last_used_at),
            day(key.expires_at),
        ]
    }));
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    Ok(())
}

fn show(key: &ApiKey) {
    println!("The key {}, which is shown only now:\n\n  {}", key.id(), key.expose());
}

fn object(key: &KeyRecord) -> Value {
    json!({
        "id": key.id, "name": key.name, "scopes": names(key.scopes), "tenant": key.tenant, "state": state(key),
        "created_at": written(key.created_at), "expires_at": key.expires_at.map(written),
        "revoked_at": key.revoked_at.map(written), "last_used_at": key.last_used_at.map(written),
        "old_secret_until": key.old_until.map(written),
    })
}

fn state(key: &KeyRecord) -> &'static str {
    match key {
        KeyRecord { revoked_at: Some(_), .. } => "revoked",
        KeyRecord { expires_at: Some(at), .. } if *at <= Utc::now() => "expired",
        KeyRecord { old_until: Some(_), .. } => "rotating",
        _ => "good",
    }
}

fn names(scopes: Scopes) -> Vec<String> {
    scopes.to_string().split_whitespace().map(ToOwned::to_owned).collect()
}

fn written(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn write(value: &Value) -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(value).map_err(Failure::running)?);
    Ok(())
}
