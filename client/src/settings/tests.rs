use super::*;

fn read(toml: &str) -> Result<Settings, SettingsError> {
    Settings::extract(Figment::from(Serialized::defaults(Settings::default())).merge(Toml::string(toml)))
}

#[test]
fn defaults_round_trip_and_a_file_overrides_them() {
    let settings = read("worker_lease = \"5s\"\nworker_queues = [\"mail\"]\napi_unknown_kinds = \"accept\"");
    let settings = settings.unwrap();
    assert_eq!(settings.worker_abort_after, Duration::from_secs(5));
    assert_eq!(read("worker_abort_after = \"1m\"").unwrap().worker_abort_after, Duration::from_secs(60));
    assert_eq!(settings.worker_lease, Duration::from_secs(5));
    assert_eq!(settings.worker_queues, ["mail".parse().unwrap()]);
    assert_eq!(settings.api_unknown_kinds, UnknownKinds::Accept);
    assert_eq!(settings.broker().expose(), "sqlite:windlass-data/windlass-broker.db");
    assert_eq!(read("worker_queues = \"a, b\"").unwrap().worker_queues.len(), 2);
}

#[test]
fn the_store_is_the_broker_unless_another_is_named() {
    for (toml, broker) in [
        ("store_url = \"postgres://u:p@h/d\"", "postgres://u:p@h/d?schema=windlass_broker"),
        (
            "store_url = \"postgres://h/d?sslmode=require\"\nstore_schema = \"jobs\"",
            "postgres://h/d?sslmode=require&schema=jobs_broker",
        ),
        ("store_url = \"sqlite:a/b?mode=rwc\"", "sqlite:a/b-broker.db?mode=rwc"),
        ("broker_url = \"memory:\"", "memory:"),
    ] {
        assert_eq!(read(toml).unwrap().broker().expose(), broker, "{toml}");
    }
}

#[test]
fn no_file_is_needed() {
    assert!(Settings::read(Path::new("/no/such/windlass.toml")).is_ok());
}

#[test]
fn what_cannot_be_used_is_named() {
    for (toml, name) in [
        ("worker_leese = \"5s\"", "worker_leese"),
        ("worker_lease = \"soon\"", "worker_lease"),
        ("worker_lease = \"1ms\"", "worker_lease"),
        ("worker_lease = \"99999999999years\"", "worker_lease"),
        ("worker_lease = 30", "a duration has a unit"),
        ("republish_after = \"2years\"", "republish_after"),
        ("store_timeout = \"0s\"", "store_timeout"),
        ("shared_read_cache = \"10m\"", "shared_url"),
        ("shared_read_cache = \"10m\"\nshared_url = \"redis://h\"", "Postgres"),
        (
            "shared_read_cache = \"0s\"\nshared_url = \"redis://h\"\nstore_url = \"postgres://h/d\"",
            "shared_read_cache must be 1s",
        ),
        ("worker_concurrency = 0", "worker_concurrency"),
        ("worker_concurrency = 9223372036854775807", "worker_concurrency"),
        ("worker_buffer = 9223372036854775807", "worker_buffer"),
        ("worker_queues = [\"a b\"]", "worker_queues"),
        ("api_unknown_kinds = \"maybe\"", "api_unknown_kinds"),
        ("api_max_in_flight = 0", "api_max_in_flight"),
        ("api_max_delay = \"0s\"", "api_max_delay"),
        ("api_max_connections = 0", "api_max_connections"),
        ("api_max_head = 100", "api_max_head"),
        ("api_max_batch_body = 200000000", "api_body_memory"),
        ("api_cors_origins = \"https://a.example/path\"", "api_cors_origins"),
        ("api_cors_origins = [\"*\", \"https://a.example\"]", "api_cors_origins"),
        ("api_tls_certificate = \"api.pem\"", "api_tls_key"),
        ("api_tls_key = \"key.pem\"", "api_tls_certificate"),
        ("metrics_listen = \"9090\"", "metrics_listen"),
        ("worker_priorities = \"fair\"", "worker_priorities"),
        ("api_auth = \"on\"", "api_auth"),
        ("api_jwt_issuer = \"https://id.example\"", "api_jwt_audience"),
        ("api_jwt_issuer = \"https://id.example\"\napi_auth = \"off\"", "api_jwt_issuer"),
        ("api_jwt_algorithms = \"HS256\"", "HS256"),
        ("api_jwt_algorithms = [\"none\"]", "none"),
        ("api_rate_ip = \"100\"", "api_rate_ip"),
        ("api_rate_key = \"5/0s\"", "api_rate_key"),
        ("api_rate_tenant = \"0/s\"", "api_rate_tenant"),
        ("api_rate_key = \"1/s queue 31\"", "api_rate_key"),
        ("api_rate_key = \"1/s queue 20\"\napi_rate_tenant = \"1/s queue 20\"", "api_rate_tenant"),
        ("api_trusted_proxies = \"nginx\"", "api_trusted_proxies"),
        ("api_proxy_header = \"x-real-ip\"", "api_proxy_header"),
        ("result_ttl = \"soon\"", "result_ttl"),
        ("retention_dead = \"soon\"", "retention_dead"),
        ("retention_queues.mail.deed = \"1d\"", "deed"),
        ("retention_queues.\"a b\".dead = \"1d\"", "retention_queues"),
        ("encryption_keys = [\"k:AAAA\"]", "encryption_keys"),
        (
            "encryption_keys = \"k:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=,k:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"",
            "encryption_keys",
        ),
    ] {
        let message = read(toml).unwrap_err().to_string();
        assert!(message.contains(name), "{toml}: {message}");
    }
}

#[test]
fn secrets_do_not_show() {
    for url in [
        "postgres://u:hunter2@db/x",
        "postgres://u:p@hunter2@db/x",
        "postgres://db/x?password=hunter2",
        "hunter2",
        "amqp://hunter2@host",
    ] {
        let shown = format!("{0} {0:?}", SecretUrl::from(url.to_owned()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let shown = format!("{:?}", read("store_url = \"postgres://u:hunter2@db/x\"").unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn priorities_are_weighted_unless_said_otherwise() {
    let priorities = |toml: &str| read(toml).unwrap().worker_priorities;
    assert_eq!(priorities(""), Priorities::Weighted);
    assert_eq!(priorities("worker_priorities = \"strict\""), Priorities::Strict);
}

#[test]
fn rates_and_proxies_are_read() {
    let settings =
        read("api_rate_ip = \"100/s burst 200\"\napi_trusted_proxies = \"10.0.0.0/8, ::1\"").unwrap();
    assert_eq!(settings.api_rate_ip, Some("100/s burst 200".parse().unwrap()));
    assert_eq!((settings.api_rate_key, settings.api_trusted_proxies.len()), (None, 2));
    assert_eq!(settings.api_proxy_header, ProxyHeader::XForwardedFor);
    let settings = read("api_rate_key = \"1/s queue 20\"\napi_proxy_header = \"forwarded\"").unwrap();
    assert_eq!(settings.api_proxy_header, ProxyHeader::Forwarded);
}

#[test]
fn retention_is_read_for_any_queue_and_for_single_ones() {
    let settings = read("retention_succeeded = \"7d\"\nretention_queues.mail.dead = \"90d\"").unwrap();
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    let mail = Keep { dead: days(90), ..Keep::default() };
    assert_eq!(
        settings.store_options().retention,
        Retention {
            any: Keep { succeeded: days(7), ..Keep::default() },
            queues: BTreeMap::from([("mail".parse().unwrap(), mail)]),
        }
    );
}

#[test]
fn keys_are_read_and_not_shown() {
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let settings = read(&format!("encryption_keys = \"b:{key}, a:{key}\"\nresult_ttl = \"1h\"")).unwrap();
    let names: Vec<&str> = settings.encryption_keys.iter().map(EncryptionKey::id).collect();
    assert_eq!((names, settings.result_ttl), (vec!["b", "a"], Some(Duration::from_secs(3600))));
    let shown = format!("{settings:?} {:?}", settings.envelope().unwrap());
    assert!(!shown.contains("BwcHB") && !shown.contains("7, 7"), "{shown}");
    let error = read("encryption_keys = [\"hunter2\"]").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}
