//! One set of names: whoever finds one in a token's chain must know whose it is.

use std::collections::{HashMap, hash_map::Entry};

use super::Client;

/// A name that would have two owners.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "client {client:?}: {name:?} is a name of client {other:?} already: another client acts as that, is called that, or \
     presents somebody else under it"
)]
pub struct NameClash {
    /// `client_id` of the client that comes later.
    pub client: String,
    /// The name.
    pub name: String,
    /// `client_id` of the one that has it.
    pub other: String,
}

/// Whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'c> {
    /// A client's: its id, or what it acts under.
    Client(&'c str),
    /// That of an actor that clients present: the same one, whoever presents it.
    Actor { tenant: &'c str, issuer: &'c str, subject: &'c str },
}

/// The names that would have two owners: ids, names to act under, and those of presented actors are one set.
/// That of an entry's processes must not be among them either, which
/// [`Registered::is_a_client`](crate::entry::Registered::is_a_client) says.
pub fn clashes(clients: &[Client]) -> Vec<NameClash> {
    let (mut owners, mut clashes) = (HashMap::new(), Vec::new());
    let own = clients.iter().flat_map(|client| {
        [client.id.as_str(), client.actor()].map(|name| (client, name, Owner::Client(&client.id)))
    });
    let presented = clients.iter().flat_map(|client| {
        client.presents_actors.iter().map(move |actor| {
            let (tenant, issuer, subject) = (&client.tenant, &actor.issuer, &actor.subject);
            (client, actor.actor.as_str(), Owner::Actor { tenant, issuer, subject })
        })
    });
    for (client, name, owner) in own.chain(presented) {
        match owners.entry(name) {
            Entry::Vacant(place) => {
                place.insert((owner, client.id.as_str()));
            }
            Entry::Occupied(held) => {
                let (holder, other) = *held.get();
                if holder != owner {
                    let (client, name, other) = (client.id.clone(), name.to_owned(), other.to_owned());
                    clashes.push(NameClash { client, name, other });
                }
            }
        }
    }
    clashes
}

#[cfg(test)]
mod tests {
    use super::{super::tests::client, *};
    use crate::client::PresentedActor;

    #[test]
    fn no_name_has_two_owners_and_a_client_may_be_named_as_it_acts() {
        let presented = |subject: &str, actor: &str| PresentedActor {
            issuer: "https://idp.example".to_owned(),
            subject: subject.to_owned(),
            actor: actor.to_owned(),
        };
        let named = |id: &str, actor: Option<&str>, presents: &[PresentedActor]| Client {
            actor: actor.map(str::to_owned),
            presents_actors: presents.to_vec(),
            ..client(id, Vec::new())
        };
        for good in [
            vec![named("a", None, &[]), named("b", Some("b"), &[]), named("c", Some("agent"), &[])],
            // The same agent, brought by two platforms.
            vec![named("a", None, &[presented("s", "bot")]), named("b", None, &[presented("s", "bot")])],
        ] {
            assert_eq!(clashes(&good), Vec::new());
        }
        for (bad, name) in [
            (vec![named("a", Some("x"), &[]), named("b", Some("x"), &[])], "x"),
            (vec![named("a", Some("b"), &[]), named("b", Some("x"), &[])], "b"),
            (vec![named("a", None, &[]), named("b", Some("a"), &[])], "a"),
            (vec![named("a", None, &[presented("s", "b")]), named("b", None, &[])], "b"),
            (vec![named("a", None, &[presented("s", "a")])], "a"),
            (vec![named("a", None, &[presented("s", "x")]), named("b", Some("x"), &[])], "x"),
            (vec![named("a", None, &[presented("s", "x"), presented("t", "x")])], "x"),
        ] {
            let found = clashes(&bad);
            assert_eq!(found.iter().map(|clash| clash.name.as_str()).collect::<Vec<_>>(), [name], "{bad:?}");
        }
        let other_tenant =
            Client { tenant: "other".to_owned(), ..named("b", None, &[presented("s", "bot")]) };
        assert_eq!(clashes(&[named("a", None, &[presented("s", "bot")]), other_tenant]).len(), 1);
    }
}
