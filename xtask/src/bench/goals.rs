//! What Myelin is out to reach on 2 cores, generator included. Units are those of the row's headline figure.

/// By the name of the row, without the sizes in it: `#` stands for any number.
const GOALS: &[(&str, f64)] = &[
    ("send, 1 room, 1 sender", 150.0),
    ("send, 1 room, 16 senders", 100.0),
    ("send, 16 rooms, 1 sender", 150.0),
    ("send, 16 rooms, 16 senders", 100.0),
    ("fan-out to #: a delivery", 25.0),
    ("fan-out to 100: last member p50", 10.0),
    ("idle sync, # rooms", 20.0),
    ("wake-up, # rooms", 100.0),
    ("wake-up, # rooms: p50", 2.0),
    ("initial sync, # rooms", 15_000.0),
    ("first window, # rooms", 2_000.0),
    ("first window, # rooms: p50", 10.0),
    ("window wake-up, # rooms: p50", 3.0),
    ("join, # users into one room", 400.0),
    ("join: last hundred to first, CPU", 1.2),
    ("page of 100 messages", 1_000.0),
    ("set one of # state events", 150.0),
    ("get all # state events", 3_000.0),
    ("create a room", 2_000.0),
    ("receipt", 60.0),
    ("typing", 60.0),
    ("inbound PDU, 1 origin", 130.0),
    ("inbound PDU, 16 origins", 130.0),
    // A signature and a request each; the event itself is the same text for all.
    ("outbound event, # destinations: a delivery", 100.0),
    ("netsplit, # of # members: an event of the other side", 1_000.0),
    ("netsplit, # of # members: the merge", 100_000.0),
    ("push, # members: a message", 2_000.0),
    ("push, # members: one that 1 in 100 watches for", 2_000.0),
    ("push, # members: one to the whole room", 2_000.0),
    ("upload of 50 one-time keys", 1_500.0),
    ("claim of a one-time key", 200.0),
    ("query of the keys of 1 user", 100.0),
    ("query of the keys of 100 users", 1_500.0),
    ("to-device message, 1 in a request", 150.0),
    ("to-device message, 100 in a request", 30.0),
    ("to-device message, received", 20.0),
    ("search among # messages: p50", 20.0),
    ("upload: time against a plain file server", 1.43),
    ("download: time against a plain file server", 1.43),
    ("memory that # uploads of 50 MB at once add", 64.0),
    ("thumbnail of 12 megapixels", 400_000.0),
    ("resident memory after the run", 120.0),
    ("restart to ready", 0.3),
    ("disk per 700-byte event", 1_200.0),
];

pub fn goal(row: &str) -> Option<f64> {
    GOALS.iter().find(|(pattern, _)| matches(pattern, row)).map(|(_, goal)| *goal)
}

fn matches(pattern: &str, row: &str) -> bool {
    let Some((before, after)) = pattern.split_once('#') else { return pattern == row };
    row.strip_prefix(before).is_some_and(|rest| {
        let after_number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        after_number.len() < rest.len() && matches(after, after_number)
    })
}

#[cfg(test)]
mod tests {
    use super::goal;

    #[test]
    fn a_goal_holds_for_every_size_of_its_workload() {
        assert_eq!(goal("idle sync, 200 rooms"), Some(20.0));
        assert_eq!(goal("idle sync, 7 rooms"), Some(20.0));
        assert_eq!(goal("idle sync, some rooms"), None);
        assert_eq!(goal("wake-up, 200 rooms: p50"), Some(2.0));
        assert_eq!(goal("wake-up, 200 rooms"), Some(100.0));
        assert_eq!(goal("netsplit, 200 of 2000 members: the merge"), Some(100_000.0));
        assert_eq!(goal("netsplit, 200 of members: the merge"), None);
    }

    #[test]
    fn a_goal_for_one_size_is_for_that_size() {
        assert_eq!(goal("fan-out to 100: last member p50"), Some(10.0));
        assert_eq!(goal("fan-out to 1000: last member p50"), None);
    }
}
