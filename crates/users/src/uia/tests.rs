use super::*;
use crate::{registration::Registration, registration_tokens::NewRegistrationToken, testing::World};

const REGISTER: &str = "POST /register";

fn operation(flows: &[Flow]) -> Operation<'_> {
    Operation { purpose: REGISTER, user: None, request: [0; 32], flows }
}

fn stage(stage: Stage, session: Option<&str>) -> AuthData {
    AuthData {
        kind: Some(stage.as_str().to_owned()),
        session: session.map(str::to_owned),
        ..AuthData::default()
    }
}

fn with_password(password: &str, session: Option<&str>) -> AuthData {
    AuthData { password: Some(password.to_owned()), ..stage(Stage::Password, session) }
}

fn with_token(token: &str, session: Option<&str>) -> AuthData {
    AuthData { token: Some(token.to_owned()), ..stage(Stage::RegistrationToken, session) }
}

impl World {
    async fn challenge(&self, operation: Operation<'_>, auth: Option<&AuthData>) -> Challenge {
        match self.users.authenticate(operation, auth).await.unwrap() {
            Progress::Incomplete(challenge) => challenge,
            Progress::Complete(proof) => panic!("complete: {proof:?}"),
        }
    }

    async fn proof(&self, operation: Operation<'_>, auth: &AuthData) -> Proof {
        match self.users.authenticate(operation, Some(auth)).await.unwrap() {
            Progress::Complete(proof) => proof,
            Progress::Incomplete(challenge) => panic!("incomplete: {challenge:?}"),
        }
    }

    async fn open_sessions(&self) -> usize {
        self.view.store.read().all(&UIA_SESSIONS, 100).await.unwrap().len()
    }
}

#[test]
fn a_single_stage_completes_without_a_session_and_without_a_write() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::Dummy]];
        let proof = world.proof(operation(&flows), &stage(Stage::Dummy, None)).await;
        assert_eq!(proof, Proof::default());
        assert_eq!(world.open_sessions().await, 0);
    });
}

#[test]
fn stages_add_up_within_a_session() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::Terms, Stage::Dummy]];
        let first = world.challenge(operation(&flows), None).await;
        assert_eq!((first.completed.as_slice(), &first.failure), (&[][..], &None));
        let session = Some(first.session.as_str());
        let second = world.challenge(operation(&flows), Some(&stage(Stage::Terms, session))).await;
        assert_eq!((second.session.as_str(), second.completed), (first.session.as_str(), vec![Stage::Terms]));
        world.proof(operation(&flows), &stage(Stage::Dummy, session)).await;

        let alone = world.challenge(operation(&flows), Some(&stage(Stage::Dummy, None))).await;
        assert_eq!(alone.completed, [Stage::Dummy], "another session");
    });
}

#[test]
fn a_session_is_bound_to_its_operation_user_and_request() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::Dummy, Stage::Terms]];
        let opened = Operation {
            purpose: "DELETE /devices/A",
            user: Some(UserNid(7)),
            request: [1; 32],
            flows: &flows,
        };
        let session = world.challenge(opened, None).await.session;
        let auth = stage(Stage::Dummy, Some(&session));
        for other in [
            Operation { purpose: "DELETE /devices/B", ..opened },
            Operation { user: Some(UserNid(8)), ..opened },
            Operation { user: None, ..opened },
            Operation { request: [2; 32], ..opened },
        ] {
            let refused = world.users.authenticate(other, Some(&auth)).await;
            assert!(matches!(refused, Err(UiaError::OtherOperation)), "{other:?}");
        }
        world.challenge(opened, Some(&auth)).await;
    });
}

#[test]
fn registrations_may_ask_for_the_flows_with_an_empty_request_first() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::Dummy]];
        let session = world.challenge(operation(&flows), None).await.session;
        let full = Operation { request: [9; 32], ..operation(&flows) };
        let proof = world.proof(full, &stage(Stage::Dummy, Some(&session))).await;
        assert_eq!(proof.session, Some(session));
        let registration = Registration { proof, ..Registration::default() };
        world.users.register(&registration).await.unwrap();
        assert_eq!(world.open_sessions().await, 0, "used up by the registration");
    });
}

#[test]
fn a_completed_session_is_used_up() {
    let world = World::new();
    world.run(async {
        let grant = world.register("alice").await;
        let user = world.users.session(&grant.access_token).await.unwrap().user;
        let flows = [vec![Stage::Password]];
        let deletion = Operation { purpose: "DELETE", user: Some(user), request: [0; 32], flows: &flows };
        let session = world.challenge(deletion, None).await.session;
        world.proof(deletion, &with_password("alice's password", Some(&session))).await;
        let again = AuthData { session: Some(session.clone()), ..AuthData::default() };
        let challenge = world.challenge(deletion, Some(&again)).await;
        assert_ne!(challenge.session, session);
    });
}

#[test]
fn of_two_requests_that_complete_a_session_one_goes_on() {
    let world = World::interleaved();
    world.run(async {
        let grant = world.register("alice").await;
        let user = world.users.session(&grant.access_token).await.unwrap().user;
        let flows = [vec![Stage::Password]];
        let deletion = Operation { purpose: "DELETE", user: Some(user), request: [0; 32], flows: &flows };
        let session = world.challenge(deletion, None).await.session;
        let auth = with_password("alice's password", Some(&session));
        let complete = || world.users.authenticate(deletion, Some(&auth));
        let (one, two) = futures::join!(complete(), complete());
        assert!(
            matches!(
                (&one, &two),
                (Ok(Progress::Complete(_)), Err(UiaError::UsedUp))
                    | (Err(UiaError::UsedUp), Ok(Progress::Complete(_)))
            ),
            "{one:?} {two:?}"
        );
    });
}

#[test]
fn the_password_stage() {
    let world = World::new();
    world.run(async {
        let grant = world.register("alice").await;
        world.register("bob").await;
        let user = world.users.session(&grant.access_token).await.unwrap().user;
        let flows = [vec![Stage::Password]];
        let deletion = Operation { purpose: "DELETE", user: Some(user), request: [0; 32], flows: &flows };
        let named = |name: &str, password: &str| {
            let identifier = Identifier {
                kind: "m.id.user".to_owned(),
                user: Some(name.to_owned()),
                medium: None,
                address: None,
            };
            AuthData { identifier: Some(identifier), ..with_password(password, None) }
        };
        for refused in [
            with_password("wrong", None),
            named("bob", "bob's password"),
            named("nobody", "alice's password"),
        ] {
            let challenge = world.challenge(deletion, Some(&refused)).await;
            assert_eq!(challenge.failure, Some(StageFailure::Password), "{refused:?}");
        }
        let missing = world.challenge(deletion, Some(&stage(Stage::Password, None))).await;
        assert_eq!(missing.failure, Some(StageFailure::Missing("password")));
        world.proof(deletion, &named("@alice:example.org", "alice's password")).await;
        world.proof(deletion, &with_password("alice's password", None)).await;
    });
}

#[test]
fn stages_that_are_not_offered() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::RegistrationToken]];
        for kind in ["m.login.dummy", "m.login.sso", ""] {
            let auth = AuthData { kind: Some(kind.to_owned()), ..AuthData::default() };
            let challenge = world.challenge(operation(&flows), Some(&auth)).await;
            assert_eq!(challenge.failure, Some(StageFailure::NotOffered(kind.to_owned())));
        }
    });
}

#[test]
fn a_registration_token_is_held_while_a_registration_is_pending() {
    let world = World::new();
    world.run(async {
        let new = NewRegistrationToken { uses_allowed: Some(1), ..NewRegistrationToken::default() };
        let token = world.users.create_registration_token(new).await.unwrap().token;
        let flows = [vec![Stage::RegistrationToken, Stage::Terms]];
        let held = world.challenge(operation(&flows), Some(&with_token(&token, None))).await;
        assert_eq!(held.completed, [Stage::RegistrationToken]);
        let late = world.challenge(operation(&flows), Some(&with_token(&token, None))).await;
        assert_eq!(late.failure, Some(StageFailure::RegistrationToken));
        assert!(!world.users.is_valid_registration_token(&token).await.unwrap());
        assert_eq!(world.users.registration_tokens(9).await.unwrap()[0].pending, 1);

        let again = with_token(&token, Some(&held.session));
        assert_eq!(world.challenge(operation(&flows), Some(&again)).await.failure, None);
        world.advance_ms(SESSION_LIFETIME_MS);
        assert!(world.users.is_valid_registration_token(&token).await.unwrap(), "given back");
        let missing = world.challenge(operation(&flows), Some(&stage(Stage::RegistrationToken, None))).await;
        assert_eq!(missing.failure, Some(StageFailure::Missing("token")));
    });
}

#[test]
fn expired_sessions_start_over_and_are_swept() {
    let world = World::new();
    world.run(async {
        let flows = [vec![Stage::Dummy, Stage::Terms]];
        let old = world.challenge(operation(&flows), None).await.session;
        world.advance_ms(SESSION_LIFETIME_MS);
        let fresh = world.challenge(operation(&flows), Some(&stage(Stage::Dummy, Some(&old)))).await;
        assert_ne!(fresh.session, old);
        assert_eq!(world.open_sessions().await, 1);
    });
}

#[test]
fn the_number_of_open_sessions_is_bounded() {
    let open = OpenSessions::default();
    assert!((0..OPEN_SESSIONS_MAX as u64).all(|n| !open.count_one(0, n + 1)));
    assert!(open.count_one(0, 1_000_000));
    assert!(!open.count_one(OPEN_SESSIONS_MAX as u64, 1_000_001), "the expired ones do not count");
}
