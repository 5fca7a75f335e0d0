use super::*;

fn load(file: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f.toml");
    std::fs::write(&path, file).expect("written");
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let set = set.iter().map(|argument| (*argument).to_owned()).collect();
    Sources { file: Some(path), env, dev: false, set }.load()
}

/// The problems with `file`, without the directory.
fn refused(file: &str, env: &[(&str, &str)], set: &[&str]) -> Vec<String> {
    let Err(Problems(problems)) = load(file, env, set) else { panic!("accepted: {file:?} {env:?} {set:?}") };
    let short = |problem: &Problem| match problem.to_string().split_once("f.toml:") {
        Some((_, rest)) => rest.to_owned(),
        None => problem.to_string(),
    };
    problems.iter().map(short).collect()
}

#[test]
fn defaults_are_complete_and_safe() {
    let config = load("", &[], &[]).expect("defaults").config;
    assert_eq!(config.server.name, "localhost");
    assert_eq!(config.server.listen[0].address.to_string(), "127.0.0.1:8008");
    assert_eq!(config.store.uri.to_string(), "embedded:./myelin-data");
    assert_eq!(config.registration.mode, types::RegistrationMode::Token);
    assert!(config.rate_limits.enabled && !config.registration.guests);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

/// A file, and what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("[server]\nnam = \"x\"", "2: unknown key 'server.nam'; did you mean 'server.name'?"),
    ("name = \"x\"", "1: unknown key 'name'; did you mean 'server.name'?"),
    ("[sever]\nname = \"x\"", "1: unknown key 'sever'; did you mean 'server'?"),
    ("[frobnicate]\nx = 1", "1: unknown key 'frobnicate'"),
    ("server = 5", "1: server is a section, found an integer"),
    ("[server]\n\nname = 5", "3: server.name: expected a server name, found an integer"),
    (
        "server.name = \"not a name\"",
        "1: server.name: 'not a name' is not a server name; it is a host name with an optional port, like example.org",
    ),
    ("server.public_base_url = \"ftp://x\"", "1: server.public_base_url: 'ftp' is not http or https"),
    (
        "server.listen = \"x\"",
        "1: server.listen: expected a list of { address, tls = { cert, key }, serves }, found a string",
    ),
    (
        "[[server.listen]]\nadress = \"127.0.0.1:1\"",
        "2: server.listen: there is no field 'adress' here; did you mean 'address'?",
    ),
    ("[[server.listen]]\nserves = [\"client\"]", "1: server.listen: the field 'address' is missing"),
    (
        "[[server.listen]]\naddress = \"localhost\"",
        "2: server.listen: address: 'localhost' is not an IP address and port, like \"127.0.0.1:8008\"",
    ),
    (
        "[[server.listen]]\naddress = \"[::1]:1\"\nserves = [\"clients\"]",
        "3: server.listen: serves: 'clients' is not \"client\", \"federation\", \"admin\" or \"metrics\"; did you mean 'client'?",
    ),
    (
        "[[server.listen]]\naddress = \"[::1]:1\"\nserves = []",
        "1: server.listen: a listener that serves nothing; leave 'serves' out for the default",
    ),
    (
        "[[server.listen]]\naddress = \"[::1]:1\"\ntls = { cert = \"x\" }",
        "3: server.listen: tls: the field 'key' is missing",
    ),
    ("server.listen = []", "1: server.listen: a server needs at least one listener"),
    ("store.uri = \"embedded:\"", "1: store.uri: 'embedded:' names no directory; write embedded:PATH"),
    (
        "store.uri = \"postgres:x\"",
        "1: store.uri: 'postgres:x' is not a PostgreSQL URI; write postgres://user:password@host/database",
    ),
    (
        "store.uri = \"sqlite:x\"",
        "1: store.uri: 'sqlite:x' is not a store; expected embedded:PATH, postgres://… or memory:",
    ),
    ("bus.uri = \"nats://h:4222\"", "1: bus.uri: the NATS bus is not built yet; use mem://"),
    ("bus.uri = \"kafka://h\"", "1: bus.uri: 'kafka://h' is not a bus; expected mem://"),
    ("media.uri = \"s3:\"", "1: media.uri: 's3:' is not file:PATH or s3://bucket/prefix"),
    (
        "registration.mode = \"opne\"",
        "1: registration.mode: 'opne' is not \"closed\", \"token\" or \"open\"; did you mean 'open'?",
    ),
    ("registration.shared_secret = \"\"", "1: registration.shared_secret: a secret cannot be empty"),
    ("registration.guests = \"yes\"", "1: registration.guests: expected true or false, found a string"),
    ("registration.terms = [{ id = \"p\" }]", "1: registration.terms: the field 'version' is missing"),
    (
        "accounts.access_token_lifetime = \"5 weeks\"",
        "1: accounts.access_token_lifetime: '5 weeks' is not a duration; write a number and ms, s, m, h or d, like 5m",
    ),
    ("rate_limits.login = 5", "1: rate_limits.login: expected { per_second, burst }, found an integer"),
    ("rate_limits.login.burst = 0", "1: rate_limits.login: burst: at least 1 request must be possible"),
    ("rate_limits.login.burst = -1", "1: rate_limits.login: burst: -1 is not between 0 and 4294967295"),
    (
        "rate_limits.login.per_second = 0.0",
        "1: rate_limits.login: per_second: 0 is not between 0.0001 and 1000000",
    ),
    (
        "rate_limits.login.brust = 3",
        "1: rate_limits.login: there is no field 'brust' here; did you mean 'burst'?",
    ),
    ("rate_limits.logn.burst = 3", "1: unknown key 'rate_limits.logn'; did you mean 'rate_limits.login'?"),
    (
        "server.well_known.support_contacts = [{ role = \"m.role.admin\" }]",
        "1: server.well_known.support_contacts: a contact needs a matrix_id or an email_address",
    ),
    ("log.filter = \"inof\"", "1: log.filter: 'inof' is not a log level; did you mean 'info'?"),
    ("log.json = 1979-05-27", "1: log.json: expected true or false, found a date"),
    ("server.trusted_proxies = [\"x\"]", "1: server.trusted_proxies: 'x' is not an IP address"),
    ("log.json = 99999999999999999999", "1: the number is too large"),
];

#[test]
fn what_is_wrong_in_the_file_is_refused_with_its_line() {
    for (file, expected) in REFUSED {
        assert_eq!(refused(file, &[], &[]), [*expected], "{file}");
    }
}

#[test]
fn overrides_are_refused_by_their_names() {
    assert_eq!(
        refused("", &[("MYELIN__SERVER__NAM", "x")], &["registration.mode=opne", "nothing", ".x=1"]),
        [
            "--set nothing: this says nothing; write --set section.key=value",
            "--set .x: '.x' is not a key; write section.key",
            "environment variable MYELIN__SERVER__NAM: unknown key 'server.nam'; did you mean 'server.name'?",
            "--set registration.mode: registration.mode: 'opne' is not \"closed\", \"token\" or \"open\"; did you mean 'open'?",
        ]
    );
    assert_eq!(
        refused("", &[], &["log.json=[1,"]),
        ["--set log.json: log.json: expected true or false, found a string"]
    );
}

#[test]
fn a_missing_file_is_refused() {
    let sources = Sources { file: Some("/nonexistent/f.toml".into()), ..Sources::default() };
    let problems = sources.load().map(|_| ()).expect_err("no such file").to_string();
    assert!(problems.contains("/nonexistent/f.toml: the file cannot be read"), "{problems}");
}

#[test]
fn later_layers_win() {
    let file = "[server]\nname = \"file.org\"\n[rate_limits.login]\nburst = 3";
    let name = |env: &[(&str, &str)], set: &[&str]| load(file, env, set).expect("valid").config.server.name;
    let env = [("MYELIN__SERVER__NAME", "env.org")];
    assert_eq!(name(&[], &[]), "file.org");
    assert_eq!(name(&env, &[]), "env.org");
    assert_eq!(name(&env, &["server.name=set.org"]), "set.org");
    assert_eq!(name(&env, &["server.name=set.org", "server.name = \"last.org\""]), "last.org");

    let limit = load(file, &[], &["rate_limits.login.per_second=7"]).expect("valid").config.rate_limits.login;
    assert_eq!(limit, types::RateLimit { per_second: 7.0, burst: 3 });
    let whole =
        load(file, &[], &["rate_limits={ enabled = false, join = { burst = 1 } }"]).expect("valid").config;
    assert!(!whole.rate_limits.enabled);
    assert_eq!((whole.rate_limits.join.burst, whole.rate_limits.login.burst), (1, 3));
}

#[test]
fn strings_take_overrides_as_they_stand() {
    let set = ["registration.shared_secret=12345", "server.name=[::1]:8448", "store.uri=embedded:/a b"];
    let config = load("", &[], &set).expect("valid").config;
    assert_eq!(config.registration.shared_secret.expect("set").0, "12345");
    assert_eq!(config.server.name, "[::1]:8448");
    assert_eq!(config.store.uri, types::StoreUri::Embedded("/a b".into()));
    let listen = "server.listen=[{ address = \"127.0.0.1:0\", serves = [\"client\", \"metrics\"] }]";
    let config = load("", &[], &[listen]).expect("valid").config;
    assert_eq!(config.server.listen[0].serves, [types::Surface::Client, types::Surface::Metrics]);
}

#[test]
fn dev_opens_registration_unless_told_otherwise() {
    let dev = |set: &[&str]| {
        let set = set.iter().map(|argument| (*argument).to_owned()).collect();
        Sources { file: None, env: Vec::new(), dev: true, set }
            .load()
            .expect("valid")
            .config
            .registration
            .mode
    };
    assert_eq!(dev(&[]), types::RegistrationMode::Open);
    assert_eq!(dev(&["registration.mode=closed"]), types::RegistrationMode::Closed);
}

#[test]
fn dangers_are_pointed_out() {
    let public = "server.listen = [{ address = \"0.0.0.0:8008\" }]\n";
    for (file, word) in [
        ("registration.mode = \"open\"\n", "registration is open"),
        ("registration.guests = true\n", "guests"),
        ("rate_limits.enabled = false\n", "rate limits are off"),
        ("", "called 'localhost'"),
        ("", "no TLS"),
        ("store.uri = \"memory:\"\n", "in memory"),
        ("registration.shared_secret = \"short\"\n", "short enough"),
        ("federation.verify_certificates = false\n", "not checked"),
    ] {
        let warnings = load(&format!("{public}{file}"), &[], &[]).expect("valid").config.warnings();
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{word}: {warnings:?}");
    }
    let open = load("registration.mode = \"open\"\nrate_limits.enabled = false", &[], &[]).expect("valid");
    assert_eq!(open.config.warnings(), Vec::<String>::new(), "loopback alone is no danger");
}

#[test]
fn every_declared_default_is_toml_and_the_printed_default_means_the_default() {
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        let text = key.default.or(key.example).expect("a default or an example");
        let parsed: Result<toml::Table, _> = toml::from_str(&format!("x = {text}"));
        assert!(parsed.is_ok(), "{}: {text}", key.name);
        assert!(!key.doc.is_empty(), "{} has no documentation", key.name);
    }
    let printed = load(&default_toml(), &[], &[]).expect("the printed default").config;
    let built_in = load("", &[], &[]).expect("defaults").config;
    assert_eq!(format!("{printed:?}"), format!("{built_in:?}"));
    let examples = default_toml()
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .fold(String::new(), |text, line| if line.starts_with(' ') { text } else { text + line + "\n" });
    load(&examples, &[], &[]).expect("every example is valid");
}

#[test]
fn the_reference_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("MYELIN_UPDATE_DOCS").is_some() {
        std::fs::write(path, markdown()).expect("written");
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == markdown(),
        "docs/configuration.md is stale: cargo run -- config default --markdown > docs/configuration.md"
    );
}

#[test]
fn show_names_origins_and_hides_secrets() {
    let loaded = load(
        "store.uri = \"postgres://u:hunter2@h/d\"",
        &[("MYELIN__REGISTRATION__SHARED_SECRET", "hunter3")],
        &["rate_limits.login.burst=7"],
    );
    let shown = loaded.expect("valid").show();
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(shown.contains("name = \"localhost\" # default\n"), "{shown}");
    assert!(
        shown.contains("login = { burst = 7, per_second = 0.2 } # --set rate_limits.login.burst\n"),
        "{shown}"
    );
    assert!(shown.contains("f.toml:1\n"), "{shown}");
    toml::from_str::<toml::Table>(&shown).expect("TOML");
}
