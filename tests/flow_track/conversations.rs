//! Whole conversations, as TCPs have them.

use haechi::flow::{Segment, SessionState, Tracked};

use crate::connection::{A, FA, Opener, Replier, WINDOW, conversation, every_way};

#[test]
fn ordinary_connections() {
    // Opened, data both ways, closed by the client (RFC 9293, figures 6 and 12).
    conversation(
        "rsa=syn_received oa=established od=established ra=established rd=established oa=established \
         of=fin_wait ra*=close_wait rf*=last_ack oa*=time_wait",
    );
    // Closed by the server, its FIN with the last data; the client's FIN acknowledges it.
    conversation("rsa=syn_received oa=established rfd=fin_wait of*=last_ack ra*=time_wait");
    // The client's SYN and the server's SYN+ACK sent again.
    conversation("os=syn_sent os=syn_sent rsa=syn_received rsa=syn_received os=syn_received oa=established");
    // The client's ACK is lost before us; its first data serves as well.
    conversation("rsa=syn_received od=established");
    // The client closes at once: its FIN carries the handshake's last ACK.
    conversation("rsa=syn_received of=fin_wait rf*=last_ack oa*=time_wait");
}

#[test]
fn simultaneous_open_and_close() {
    // RFC 9293, figure 7: both SYN, both SYN+ACK.
    conversation("rs=syn_sent2 osa=syn_received rsa=established");
    conversation("rs=syn_sent2 rsa=syn_received osa=established od=established");
    // An end that answers with a plain ACK.
    conversation("rs=syn_sent2 ra=syn_received oa=established");
    // Figure 13: FINs cross, then their ACKs.
    conversation("rsa=syn_received oa=established of=fin_wait rf=closing oa*=last_ack ra*=time_wait");
}

#[test]
fn half_closed_connections_go_on() {
    // The client has sent its request and closes; the server answers at length.
    conversation(
        "rsa=syn_received oa=established od=established of=fin_wait ra*=close_wait rd*=close_wait \
         oa=close_wait rd*=close_wait oa=close_wait rf*=last_ack oa*=time_wait",
    );
}

#[test]
fn a_fin_is_acknowledged_by_its_own_number_alone() {
    every_way(|mut c| {
        c.talk("rsa=syn_received oa=established od=established of=fin_wait");
        let end = c.fin_end[0].unwrap();
        for wrong in [
            end.wrapping_sub(1),
            end.wrapping_sub(101),
            end.wrapping_add(1),
            end ^ 0x8000_0000,
        ] {
            let ack = Segment {
                flags: A,
                seq: c.next[1],
                ack: wrong,
                data_len: 0,
                ..WINDOW
            };
            let sent = wrong.wrapping_sub(end) > 0x8000_0000;
            let expected = if sent { Tracked::Stay } else { Tracked::OutOfWindow };
            assert_eq!(
                c.raw(Replier, ack),
                (expected, SessionState::FinWait),
                "{wrong} for {end}"
            );
        }
        c.talk("ra*=close_wait");
    });
}

#[test]
fn a_fin_sent_again_with_more_data_counts_anew() {
    every_way(|mut c| {
        c.talk("rsa=syn_received oa=established");
        let (seq, other) = (c.next[0], c.next[1]);
        let fin = |data_len| Segment {
            flags: FA,
            seq,
            ack: other,
            data_len,
            ..WINDOW
        };
        // Sent after 100 bytes that were lost, then both in one segment, then with 50 bytes more.
        let first = Segment {
            seq: seq.wrapping_add(100),
            ..fin(0)
        };
        assert_eq!(c.raw(Opener, first).1, SessionState::FinWait);
        assert_eq!(c.raw(Opener, fin(100)), (Tracked::Stay, SessionState::FinWait));
        assert_eq!(c.raw(Opener, fin(150)), (Tracked::Stay, SessionState::FinWait));
        let ack = |ack| Segment {
            flags: A,
            seq: other,
            ack,
            data_len: 0,
            ..WINDOW
        };
        assert_eq!(
            c.raw(Replier, ack(seq.wrapping_add(101))).1,
            SessionState::FinWait
        );
        assert_eq!(
            c.raw(Replier, ack(seq.wrapping_add(151))).1,
            SessionState::CloseWait
        );
        // Acknowledged is acknowledged.
        assert_eq!(c.raw(Opener, fin(0)), (Tracked::Stay, SessionState::CloseWait));
    });
}

#[test]
fn resets() {
    // Nobody listens.
    conversation("rra=closed");
    // The client gives up.
    conversation("or=closed");
    // In mid-stream, by either end; what was on its way passes.
    conversation("rsa=syn_received oa=established or=closed rd=closed or=closed");
    conversation("rsa=syn_received oa=established rra=closed od=closed rr=closed");
    // A RST overtakes the FIN that was sent before it: it is not what the opener expects next any more, so it goes on until the
    // replier's socket, which is gone, has answered its segments. Found by tests/soak.sh: these were dropped.
    conversation(
        "rsa=syn_received oa=established od=established rr=closed rf=closed oa*=closed od*=closed rr=closed",
    );
    // TIME_WAIT too.
    conversation("rsa=syn_received oa=established of=fin_wait rf*=last_ack oa*=time_wait rr=closed");
}

#[test]
fn ports_are_used_again() {
    let closed = "rsa=syn_received oa=established of=fin_wait rf*=last_ack oa*=time_wait ";
    conversation(&format!("{closed} ra=time_wait os=REOPEN"));
    conversation(&format!("{closed} rs=REOPEN"));
    conversation("rra=closed os=REOPEN");
    // Half-open (RFC 9293, figure 9): the server still holds an old connection and says so with an ACK, the client
    // resets it and tries again.
    conversation("ra=syn_sent or=syn_sent os=syn_sent rsa=syn_received oa=established");
    // The client restarted: its SYN passes an established session, the challenge ACK comes back, the RST clears it.
    conversation("rsa=syn_received oa=established os=established ra=established or=closed os=REOPEN");
    // But not while the old connection is closing.
    conversation("rsa=syn_received oa=established of=fin_wait os=fin_wait ra*=close_wait os=close_wait");
}
