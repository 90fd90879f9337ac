//! Clients and a manager, without workers: everything is accepted, once the network lets it.

use std::collections::BTreeSet;
use std::time::Duration;

use carbontube_mutation::{self as mutation, Mutation};
use carbontube_protocol::{JobId, Timestamp};
use fastrand::Rng;

use super::ClientNode;
use crate::context::{Agenda, Context, Counts, Due};
use crate::disk::{DiskFaults, VirtualDisk};
use crate::manager::ManagerNode;
use crate::network::{Network, NodeId};
use crate::oracle::{Oracle, Told};
use crate::parameters::Parameters;
use crate::trace::Trace;

struct Scene {
    context: Context,
    manager: ManagerNode,
    clients: Vec<ClientNode>,
}

fn scene(seed: u64) -> Scene {
    let mut parameters = Parameters::draw(seed);
    parameters.core.live_jobs_max = 1000;
    parameters.core.history_jobs_max = 1000;
    for client in &mut parameters.clients {
        // Without workers only what is cancelled ends.
        client.waits = false;
    }
    let mut context = Context {
        now: Timestamp(1_000_000_000),
        random: Rng::with_seed(seed),
        parameters,
        network: Network::default(),
        agenda: Agenda::default(),
        oracle: Oracle::default(),
        trace: Trace::new(Timestamp(1_000_000_000), false),
        counts: Counts::default(),
        healed: false,
    };
    let mut manager = ManagerNode::new(VirtualDisk::new(
        seed,
        DiskFaults::draw(&mut Rng::with_seed(seed)),
    ));
    manager.start(&mut context).expect("an empty disk");
    let clients = (0..context.parameters.clients.len()).map(|number| {
        let mut client = ClientNode::new(number, &context);
        client.start(&mut context);
        client
    });
    let clients = clients.collect();
    Scene {
        context,
        manager,
        clients,
    }
}

impl Scene {
    fn run(&mut self, lasts: Duration) {
        let until = self.context.now + lasts;
        while let Some((at, due)) = self.context.agenda.pop() {
            self.context.now = self.context.now.max(at);
            self.step(due);
            while let Some(notice) = self.context.network.notices.pop_front() {
                match notice.node {
                    NodeId::Manager => self.manager.on_notice(&mut self.context, notice),
                    NodeId::Client(number) => {
                        self.clients[number].on_notice(&mut self.context, notice);
                    }
                    NodeId::Worker(_) | NodeId::World => {}
                }
            }
            if self.context.now >= until {
                return;
            }
        }
    }

    fn step(&mut self, due: Due) {
        let Scene {
            context,
            manager,
            clients,
        } = self;
        match due {
            Due::Dial(link) => context.dial(link),
            Due::Arrive {
                link,
                direction,
                generation,
            } => {
                let Some(arrived) = context.arrive(link, direction, generation) else {
                    return;
                };
                match arrived.node {
                    NodeId::Manager => manager.on_message(context, arrived),
                    NodeId::Client(number) => clients[number].on_message(context, arrived),
                    NodeId::Worker(_) | NodeId::World => {}
                }
            }
            Due::Broken { link, generation } => context.notice_broken(link, generation),
            Due::Wake { node, life, token } => match node {
                NodeId::Manager if manager.life() == life => manager.on_wake(context, token),
                NodeId::Client(number) if clients[number].life() == life => {
                    clients[number].on_wake(context, token);
                }
                _ => {}
            },
            Due::World(_) => {}
        }
    }

    fn break_something(&mut self) {
        let connected = self.context.network.connected();
        if !connected.is_empty() {
            let which = self.context.random.usize(..connected.len());
            self.context.break_link(connected[which]);
        }
        let number = self.context.random.usize(..self.clients.len());
        if self.context.random.u32(0..4) == 0 {
            self.clients[number].kill(&mut self.context, None);
            self.clients[number].start(&mut self.context);
        }
        if self.context.random.u32(0..10) == 0 {
            self.manager.kill(&mut self.context, None);
            self.manager.start(&mut self.context).expect("no damage");
        }
    }
}

/// What is wrong at the end of a scene, if anything.
fn wrong(seed: u64) -> Option<String> {
    let mut scene = scene(seed);
    for _ in 0..40 {
        scene.run(Duration::from_millis(200));
        scene.break_something();
    }
    scene.context.healed = true;
    scene.run(Duration::from_secs(200));
    if let Some(number) = scene.clients.iter().position(|client| !client.is_done()) {
        return Some(format!("seed {seed}: client {number} is not done"));
    }
    let core = scene.manager.core().expect("it runs");
    let live: BTreeSet<JobId> = core.live_jobs().map(|job| job.id.clone()).collect();
    let clients = &scene.context.parameters.clients;
    let cancels = clients.iter().any(|client| client.cancels > 0.0);
    scene.context.oracle.jobs().iter().find_map(|(id, known)| {
        let was_told = |wanted| known.told.iter().any(|(_, told)| *told == wanted);
        let (accepted, refused) = (was_told(Told::Accepted), was_told(Told::Refused));
        let is_lost = accepted && !cancels && !live.contains(id);
        let wrong = is_lost || (accepted && refused);
        wrong.then(|| format!("seed {seed}: {id}: {known:?}"))
    })
}

#[test]
fn whatever_breaks_each_job_is_known_and_nothing_bad_is_accepted() {
    assert_eq!((0..60).find_map(wrong), None);
}

#[test]
fn jobs_that_get_new_ids_on_the_way_are_missed() {
    mutation::switch(Some(Mutation::NewIdAtResend));
    assert!((0..60).find_map(wrong).is_some());
    mutation::switch(None);
}
