//! The addresses, how the connection to each is, and which one is used.

use carbontube_protocol::Address;
use carbontube_protocol::message::Code;

/// How a link is.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// There is no connection; with what was met last.
    Dialling(String),
    /// There is a connection; the greeting is to be sent.
    Connected,
    /// The greeting was sent under this number.
    Greeting(u64),
    /// The manager answers.
    Live {
        /// It takes no more jobs, so that another is better.
        draining: bool,
    },
    /// The manager answered that it cannot be talked to.
    Refused(Option<Code>, String),
    /// A pull address.
    Push,
}

#[derive(Debug)]
struct Link {
    address: Address,
    condition: Condition,
}

/// All links of a client, of which one at most is active: requests are sent there.
#[derive(Debug)]
pub struct Links {
    each: Vec<Link>,
    active: Option<usize>,
    has_answered: bool,
}

impl Links {
    pub(super) fn new(addresses: &[Address]) -> Self {
        let each = addresses.iter().map(|address| Link {
            address: address.clone(),
            condition: Condition::Dialling("not reached yet".to_owned()),
        });
        Links {
            each: each.collect(),
            active: None,
            has_answered: false,
        }
    }

    /// The address of a link.
    pub fn address(&self, link: usize) -> &Address {
        &self.each[link].address
    }

    /// How a link is.
    pub fn condition(&self, link: usize) -> &Condition {
        &self.each[link].condition
    }

    /// The link that requests are sent on.
    pub fn active(&self) -> Option<usize> {
        self.active
    }

    /// Whether there is an address where requests are answered.
    pub fn has_api(&self) -> bool {
        // Beside a pull address, an address that never answered counts for nothing.
        self.has_answered || !self.has_push()
    }

    /// Whether there is a pull address.
    pub fn has_push(&self) -> bool {
        self.conditions()
            .any(|condition| *condition == Condition::Push)
    }

    /// Whether there is somebody to talk to; `None` while that is not known.
    pub fn first_answer(&self) -> Option<bool> {
        if self.active.is_some() {
            return Some(true);
        }
        let settled =
            |condition: &Condition| matches!(condition, Condition::Push | Condition::Refused(..));
        self.conditions().all(settled).then(|| self.has_push())
    }

    /// The code that every refusal gave.
    pub fn shared_code(&self) -> Option<Code> {
        let mut codes = self.conditions().filter_map(|condition| match condition {
            Condition::Refused(code, _) => Some(*code),
            _ => None,
        });
        let first = codes.next()??;
        codes.all(|code| code == Some(first)).then_some(first)
    }

    /// Each link in words.
    pub fn tried(&self) -> Vec<(Address, String)> {
        let each = self.each.iter().map(|link| {
            let met = match &link.condition {
                Condition::Dialling(met) | Condition::Refused(_, met) => met.clone(),
                Condition::Connected | Condition::Greeting(_) => {
                    "connected, but it does not answer".to_owned()
                }
                Condition::Live { draining: false } => "connected".to_owned(),
                Condition::Live { draining: true } => "connected, but it is draining".to_owned(),
                Condition::Push => "a pull address".to_owned(),
            };
            (link.address.clone(), met)
        });
        each.collect()
    }

    /// All links in one line.
    pub(super) fn describe(&self) -> String {
        let each: Vec<String> = self
            .tried()
            .into_iter()
            .map(|(address, met)| format!("{address}: {met}"))
            .collect();
        each.join("; ")
    }

    /// A link is otherwise than before; whatever is best now becomes active.
    pub(super) fn set(&mut self, link: usize, condition: Condition) {
        self.has_answered |= matches!(condition, Condition::Live { .. });
        self.each[link].condition = condition;
        self.choose();
    }

    /// Whether a manager that takes jobs is active, and is not this one.
    pub(super) fn has_better_than(&self, link: usize) -> bool {
        self.active
            .is_some_and(|active| active != link && self.serves(active))
    }

    /// An active link stays for as long as it serves. One that drains is better than none:
    /// it still answers questions, and tells how jobs end.
    fn choose(&mut self) {
        if self.active.is_some_and(|active| self.serves(active)) {
            return;
        }
        let count = self.each.len();
        let answers = |link: &usize| {
            matches!(
                self.each[*link].condition,
                Condition::Live { draining: true }
            )
        };
        self.active = (0..count)
            .find(|link| self.serves(*link))
            .or(self.active.filter(answers))
            .or((0..count).find(answers));
    }

    fn serves(&self, link: usize) -> bool {
        self.each[link].condition == Condition::Live { draining: false }
    }

    fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.each.iter().map(|link| &link.condition)
    }
}
