-- SPDX-License-Identifier: Apache-2.0
-- What the scripts of this directory share. Guide: docs/pktgen.md.
--
-- Two ports of pktgen face the two sides of the firewall. The client is behind LAN, the server behind WAN; the client's port sends
-- the original direction of every flow, the server's port the replies.
--
-- Settings come from the environment, since `pktgen -f SCRIPT` takes no arguments; PG_ stands before each name:
--   LAN_PORT, WAN_PORT         pktgen's port numbers (0 and 1)
--   CLIENT, SERVER             IPv4 addresses (10.0.0.1 and 198.18.0.2)
--   CLIENT_PORT, SERVER_PORT   UDP ports (32768 and 443)
--   CLIENT_MAC, SERVER_MAC     MAC addresses (02:00:00:00:00:01 and 02:00:00:00:00:02)
--   SIZE                       frame size with FCS (64)
--   RATE                       offered load of each port, percent of its link (10)
--   SECONDS                    how long a script measures (10)

local M = {}

-- A setting: of the default's type, so that a word where a number belongs is an error.
function M.setting(name, default)
    local text = os.getenv("PG_" .. name)
    if text == nil or text == "" then return default end
    if type(default) ~= "number" then return text end
    local value = tonumber(text)
    if value == nil or value < 0 then error("PG_" .. name .. "=" .. text .. ": a number is wanted") end
    return value
end

-- A list of numbers, "64,128".
function M.numbers(name, default)
    local list = {}
    for word in M.setting(name, default):gmatch("[^, ]+") do
        list[#list + 1] = tonumber(word) or error("PG_" .. name .. ": " .. word .. " is no number")
    end
    if #list == 0 then error("PG_" .. name .. ": at least one number is wanted") end
    return list
end

-- Port numbers are integers, also where the environment says "1.0".
local function port_number(name, default)
    return math.tointeger(M.setting(name, default)) or error("PG_" .. name .. ": a port number is wanted")
end

M.lan = port_number("LAN_PORT", 0)
M.wan = port_number("WAN_PORT", 1)
M.both = M.lan .. "," .. M.wan
M.size = M.setting("SIZE", 64)
M.rate = M.setting("RATE", 10)
M.seconds = M.setting("SECONDS", 10)
M.client = {
    address = M.setting("CLIENT", "10.0.0.1"),
    port = M.setting("CLIENT_PORT", 32768),
    mac = M.setting("CLIENT_MAC", "02:00:00:00:00:01"),
}
M.server = {
    address = M.setting("SERVER", "198.18.0.2"),
    port = M.setting("SERVER_PORT", 443),
    mac = M.setting("SERVER_MAC", "02:00:00:00:00:02"),
}

function M.say(...)
    print(string.format(...))
    io.stdout:flush()
end

-- Seconds of a clock that never stops; pktgen offers none that is finer than a second.
function M.clock()
    local file = assert(io.open("/proc/uptime"))
    local seconds = file:read("n")
    file:close()
    return seconds
end

-- Link speed of a port in Mbit/s. A link that is down is an error: pktgen would count what it could not send.
function M.link(port)
    local state
    for _ = 1, 100 do
        state = pktgen.linkState(tostring(port))[port]
        local speed = tonumber(state:match("UP%-(%d+)"))
        if speed ~= nil then
            -- "Unknown" is the largest number of 32 bits; pktgen counts with 10 Gbit/s then.
            return speed < 4294967295 and speed or 10000
        end
        pktgen.delay(100)
    end
    error("port " .. port .. " has no link: " .. state)
end

-- Frames a second of a size (with FCS) that fill a link: 20 bytes more are preamble, start delimiter and gap.
function M.line_rate(mbits, size)
    return mbits * 1e6 / ((size + 20) * 8)
end

local function point(port, source, destination)
    local name = tostring(port)
    pktgen.set_mac(name, "src", source.mac)
    pktgen.set_mac(name, "dst", destination.mac)
    pktgen.set_ipaddr(name, "src", source.address .. "/32")
    pktgen.set_ipaddr(name, "dst", destination.address)
    pktgen.set_proto(name, "udp")
    pktgen.set(name, "sport", source.port)
    pktgen.set(name, "dport", destination.port)
end

-- Both ports send the one flow between client and server.
function M.prepare()
    pktgen.screen("off")
    pktgen.stop(M.both)
    point(M.lan, M.client, M.server)
    point(M.wan, M.server, M.client)
    pktgen.set(M.both, "count", 0)
    M.load(M.size, M.rate)
    M.mbits = math.min(M.link(M.lan), M.link(M.wan))
end

-- Size first: pktgen works out the rate from it. A size of nil leaves the sizes to the sequence or the capture in use.
--
-- pktgen keeps an account of when its next burst is due, also while it sends nothing, and what it could not keep up with (as a CPU that is
-- shared never can at 100 %, where it starts) it sends later, faster than the rate. At a low rate such a debt is paid in no time.
function M.load(size, rate)
    if size ~= nil then pktgen.set(M.both, "size", size) end
    pktgen.set(M.both, "rate", 0.1)
    pktgen.delay(300)
    pktgen.set(M.both, "rate", rate)
end

-- Opens the sessions: originals alone for so many seconds, at a low rate, then replies too. A stateful firewall drops replies to what it
-- has not seen, so no measurement may begin otherwise.
function M.establish(seconds)
    pktgen.set(M.both, "count", 0)
    pktgen.start(tostring(M.lan))
    pktgen.delay(math.ceil(seconds * 1000))
    pktgen.start(tostring(M.wan))
    pktgen.delay(math.ceil(seconds * 1000))
    pktgen.stop(M.both)
    M.settle()
end

-- RFC 2544, section 23: two seconds for the frames that are still on their way. pktgen reads its counters once a second, so
-- they are also as old as that.
function M.settle()
    pktgen.delay(2500)
end

-- What both ports sent and received since the last clear. `lost` counts what one port sent and the other did not receive.
function M.totals()
    local l = pktgen.portStats(tostring(M.lan), "port")[M.lan]
    local w = pktgen.portStats(tostring(M.wan), "port")[M.wan]
    return {
        sent = l.opackets + w.opackets,
        received = l.ipackets + w.ipackets,
        lost = l.opackets + w.opackets - l.ipackets - w.ipackets,
        missed = l.imissed + w.imissed,
    }
end

-- Sends for SECONDS and prints each second's rates in both directions, then the totals.
function M.run()
    pktgen.clr()
    pktgen.start(M.both)
    M.say("%6s %16s %16s %14s %14s", "second", "client sent/s", "server got/s", "server sent/s", "client got/s")
    for second = 1, M.seconds do
        pktgen.delay(1000)
        local l = pktgen.portStats(tostring(M.lan), "rate")[M.lan]
        local w = pktgen.portStats(tostring(M.wan), "rate")[M.wan]
        M.say("%6d %16d %16d %14d %14d", second, l.opackets, w.ipackets, w.opackets, l.ipackets)
    end
    pktgen.stop(M.both)
    M.settle()
    local t = M.totals()
    M.say("sent %d, received %d, lost %d (%.4f %%), of which %d found pktgen's own receive ring full",
        t.sent, t.received, t.lost, t.sent > 0 and 100 * t.lost / t.sent or 0, t.missed)
end

-- Runs a script's body; whatever happens, the ports stop and pktgen ends.
function M.main(body)
    local ok, message = xpcall(body, debug.traceback)
    if not ok then M.say("failed: %s", message) end
    pktgen.stop(M.both)
    M.say(ok and "done" or "not done")
    pktgen.quit()
end

return M
