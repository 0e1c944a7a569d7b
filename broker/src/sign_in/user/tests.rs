use super::*;
use crate::sign_in::wall_clock::WallClock;
use deputize_call::sign::SigningAlgorithm;
use deputize_issuer::clock::TestClock;
use deputize_stand_ins::identity_provider::{IdentityProvider, PublicClient};
use std::sync::Mutex as StdMutex;
use url::Url;

/// A user at the provider of `dev`, and the URLs that he was told.
struct Fixture {
    user: SignedInUser,
    told: Arc<StdMutex<Vec<String>>>,
    clock: Arc<TestClock>,
}

async fn fixture() -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let client =
        PublicClient { client_id: "platform".to_owned(), redirect_paths: vec!["/callback".to_owned()] };
    let clock = Arc::new(TestClock::at_seconds(1_700_000_000));
    let wall_clock = Arc::new(WallClock(Arc::clone(&clock)));
    let provider = IdentityProvider::new(&issuer, vec![client], SigningAlgorithm::ES256, wall_clock).unwrap();
    let router = Arc::new(provider).router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let provider = Provider::discover(&issuer, "platform", clock.clone()).await.unwrap();
    let told = Arc::new(StdMutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let user =
        SignedInUser::new(provider, clock.clone(), move |url| heard.lock().unwrap().push(url.to_owned()));
    Fixture { user, told, clock }
}

impl Fixture {
    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// What a browser does in which alice is known: where it is sent in the end.
    async fn browse(&self, url: &str) -> Url {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut url: Url = url.parse().unwrap();
        url.query_pairs_mut().append_pair("prompt", "none").append_pair("login_hint", "alice");
        let answer = client.get(url).send().await.unwrap();
        answer.headers()["location"].to_str().unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn a_user_signs_in_at_the_url_that_is_told_and_is_known_until_the_token_expires() {
    let fixture = fixture().await;
    fixture.user.begin().await.unwrap();
    let back = fixture.browse(&fixture.told()[0]).await;
    let page = reqwest::get(back).await.unwrap().text().await.unwrap();
    assert!(page.contains("close this window"));
    let token = fixture.user.current().await.unwrap();
    assert_eq!((token.kind(), token.expose().split('.').count()), (TokenType::IdToken, 3));
    assert_eq!(fixture.user.current().await.unwrap().expose(), token.expose());
    assert_eq!(fixture.told().len(), 1);

    fixture.user.refused(&UserToken::new("another", TokenType::IdToken).unwrap()).await;
    assert_eq!(fixture.user.current().await.unwrap().expose(), token.expose());
    fixture.clock.advance(Duration::from_secs(3600));
    // This provider refreshes nothing: the user is asked again.
    let again = tokio::spawn({
        let user = SignedInUser(Arc::clone(&fixture.user.0));
        async move { user.current().await }
    });
    while fixture.told().len() < 2 {
        tokio::task::yield_now().await;
    }
    let back = fixture.browse(&fixture.told()[1]).await;
    reqwest::get(back).await.unwrap();
    assert_ne!(again.await.unwrap().unwrap().expose(), token.expose());
}

#[tokio::test]
async fn answers_to_something_else_are_passed_over() {
    let fixture = fixture().await;
    fixture.user.begin().await.unwrap();
    let back = fixture.browse(&fixture.told()[0]).await;
    for forged in ["?code=injected", "?code=injected&state=guessed", "?error=access_denied&state=guessed", ""]
    {
        let mut url = back.clone();
        url.set_query(None);
        reqwest::get(format!("{url}{forged}")).await.unwrap();
    }
    // One at a time is looked at; a browser tries again, and so does this one.
    let fetched = async {
        loop {
            reqwest::get(back.clone()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let token = tokio::select! {
        token = fixture.user.current() => token.unwrap(),
        () = fetched => panic!("it never ends"),
    };
    assert_eq!(token.expose().split('.').count(), 3);
}

#[tokio::test]
async fn a_sign_in_that_the_provider_refuses_is_told_once_and_begun_anew() {
    let fixture = fixture().await;
    fixture.user.begin().await.unwrap();
    let mut refused = fixture.browse(&fixture.told()[0]).await;
    let state = refused.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    refused.query_pairs_mut().clear().append_pair("error", "access_denied").append_pair("state", &state);
    reqwest::get(refused).await.unwrap();
    let error = fixture.user.current().await.unwrap_err();
    assert!(error.to_string().contains("access_denied"), "{error}");
    assert_eq!(fixture.told().len(), 1);
    let user = SignedInUser(Arc::clone(&fixture.user.0));
    let anew = tokio::spawn(async move { user.current().await });
    while fixture.told().len() < 2 {
        tokio::task::yield_now().await;
    }
    anew.abort();
}
