use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};

use super::*;
use crate::{
    mail::{MailError, Mailer},
    testing::World,
};

#[derive(Default)]
struct Letterbox {
    mails: Mutex<Vec<Mail>>,
    broken: std::sync::atomic::AtomicBool,
}

impl Mailer for Letterbox {
    fn send(&self, mail: Mail) -> BoxFuture<'_, Result<(), MailError>> {
        async move {
            if self.broken.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(MailError("no".to_owned()));
            }
            self.mails.lock().push(mail);
            Ok(())
        }
        .boxed()
    }
}

fn world() -> (World, Arc<Letterbox>) {
    let letterbox = Arc::new(Letterbox::default());
    let mailer = letterbox.clone();
    let world = World::with(|config| {
        config.mail = Some(MailSetup {
            mailer,
            base_url: "https://m.org".to_owned(),
            next_link_hosts: vec!["app.org".to_owned()],
            required: false,
        });
    });
    (world, letterbox)
}

fn request(send_attempt: u64) -> TokenRequest {
    TokenRequest {
        purpose: ValidationPurpose::Register,
        email: "Alice@Example.ORG".to_owned(),
        client_secret: "s3cret".to_owned(),
        send_attempt,
        next_link: Some("https://app.org/next".to_owned()),
    }
}

fn token_in(mail: &Mail) -> String {
    let rest = mail.text.split("token=").nth(1).unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_click_validates_and_attempts_are_counted() {
    let (world, letterbox) = world();
    world.run(async {
        let users = &world.users;
        let sid = users.request_validation(&request(1)).await.unwrap();
        assert_eq!(users.request_validation(&request(1)).await.unwrap(), sid);
        assert_eq!(letterbox.mails.lock().len(), 1, "the same attempt sends no other mail");
        assert_eq!(letterbox.mails.lock()[0].to, "alice@example.org");
        assert_eq!(users.request_validation(&request(2)).await.unwrap(), sid);
        let tokens: Vec<_> = letterbox.mails.lock().iter().map(token_in).collect();
        let old = users.validate(&sid, "s3cret", &tokens[0]).await;
        assert!(matches!(old, Err(ValidationError::WrongToken)), "{old:?}");
        let other = users.validate(&sid, "other", &tokens[1]).await;
        assert!(matches!(other, Err(ValidationError::WrongToken)), "{other:?}");
        let purpose = ValidationPurpose::Register;
        assert_eq!(users.validated(purpose, &sid, "s3cret").await.unwrap(), None);
        for _ in 0..2 {
            let next = users.validate(&sid, "s3cret", &tokens[1]).await.unwrap();
            assert_eq!(next.as_deref(), Some("https://app.org/next"));
        }
        assert!(users.validated(purpose, &sid, "s3cret").await.unwrap().is_some());
        assert_eq!(users.validated(ValidationPurpose::Add, &sid, "s3cret").await.unwrap(), None);
    });
}

#[test]
fn guesses_end_a_session() {
    let (world, letterbox) = world();
    world.run(async {
        let sid = world.users.request_validation(&request(1)).await.unwrap();
        for _ in 0..WRONG_TOKENS_MAX {
            assert!(world.users.validate(&sid, "s3cret", "guess").await.is_err());
        }
        let token = token_in(&letterbox.mails.lock()[0]);
        assert!(world.users.validate(&sid, "s3cret", &token).await.is_err());
    });
}

#[test]
fn what_cannot_be_sent_can_be_tried_again_and_not_too_often() {
    let (world, letterbox) = world();
    world.run(async {
        letterbox.broken.store(true, std::sync::atomic::Ordering::SeqCst);
        let failed = world.users.request_validation(&request(1)).await;
        assert!(matches!(failed, Err(ValidationError::NotSent)), "{failed:?}");
        letterbox.broken.store(false, std::sync::atomic::Ordering::SeqCst);
        world.users.request_validation(&request(1)).await.unwrap();
        assert_eq!(letterbox.mails.lock().len(), 1);
        for attempt in 2..=4 {
            world.users.request_validation(&request(attempt)).await.unwrap();
        }
        let refused = world.users.request_validation(&request(5)).await;
        assert!(matches!(refused, Err(ValidationError::TooManyMails { .. })), "{refused:?}");
    });
}

#[test]
fn bad_requests() {
    let (world, _) = world();
    world.run(async {
        let bad = TokenRequest { client_secret: "a b".to_owned(), ..request(1) };
        let refused = world.users.request_validation(&bad).await;
        assert!(matches!(refused, Err(ValidationError::InvalidParam(_))), "{refused:?}");
        let bad = TokenRequest { email: "nobody".to_owned(), ..request(1) };
        let refused = world.users.request_validation(&bad).await;
        assert!(matches!(refused, Err(ValidationError::NoAddress(_))), "{refused:?}");
        let unknown = TokenRequest { purpose: ValidationPurpose::ResetPassword, ..request(1) };
        let refused = world.users.request_validation(&unknown).await;
        assert!(matches!(refused, Err(ValidationError::NotFound)), "{refused:?}");
    });
    let silent = World::new();
    let refused = silent.run(silent.users.request_validation(&request(1)));
    assert!(matches!(refused, Err(ValidationError::NoMail)), "{refused:?}");
}

#[test]
fn links_lead_to_known_hosts_only() {
    let hosts = ["app.org".to_owned()];
    for (link, expected) in [
        ("https://app.org/x?y#z", true),
        ("http://APP.org:8080", true),
        ("https://evil.org/app.org", false),
        ("https://app.org@evil.org/", false),
        ("https://app.org.evil.org", false),
        ("https://evil.org\\@app.org", false),
        ("javascript:alert(1)", false),
        ("//app.org", false),
        ("https://app.org/\r\nx", false),
    ] {
        assert_eq!(may_follow(link, &hosts), expected, "{link}");
    }
}
