-- SPDX-License-Identifier: Apache-2.0
-- Runs the scripts of dpdk-config/pktgen against a pktgen that is not there: ports, a clock and a stateful device of known capacity, in
-- memory. lua5.3 tests/pktgen/check.lua, from the project's directory.

local scripts = "dpdk-config/pktgen/"
package.path = scripts .. "?.lua;" .. package.path
-- Settings are read from here instead of the environment; a clock that the fake moves.
local environment, now = {}, 0
os.getenv = function(name) return environment[name] end

local LINK = 10000 -- Mbit/s
local output, ports, device

local function each(list, f)
    for word in tostring(list):gmatch("%d+") do f(ports[tonumber(word)]) end
end

local function mean_size(port)
    if port.pcap then return device.pcap_size end
    if port.seq_cnt == 0 then return port.size end
    local sum = 0
    for i = 0, port.seq_cnt - 1 do sum = sum + port.seq[i].pktSize end
    return sum / port.seq_cnt
end

-- A firewall: replies pass once an original has. What is above its capacity it loses.
local function pass(seconds)
    for id = 0, 1 do
        local port, far = ports[id], ports[1 - id]
        if port.sending then
            local rate = math.min(LINK * 1e6 / ((mean_size(port) + 20) * 8) * port.rate / 100, device.source)
            port.due = port.due + rate * seconds
            local n = math.floor(port.due)
            if port.left then n = math.min(n, port.left) end
            port.due = port.due - n
            port.opackets = port.opackets + n
            if id == 0 and n > 0 then device.session = true end
            local through = rate > device.capacity and n * device.capacity / rate or n
            if id == 1 and not device.session then through, device.refused = 0, device.refused + n end
            port.carry = port.carry + through
            far.ipackets = far.ipackets + math.floor(port.carry)
            port.carry = port.carry - math.floor(port.carry)
            if port.left then
                port.left = port.left - n
                if port.left == 0 then port.sending = false end
            end
        end
    end
end

local function reset(capacity, source)
    output, now = {}, 0
    device = { capacity = capacity, source = source or math.huge, session = false, refused = 0, pcap_size = 128 }
    ports = {}
    for id = 0, 1 do
        ports[id] = { id = id, ipackets = 0, opackets = 0, due = 0, carry = 0, rate = 100, size = 64, count = 0, seq = {}, seq_cnt = 0, set = {} }
    end
end

local function keep(name)
    return function(list, what, value) each(list, function(p) p.set[name .. " " .. what] = value end) end
end

local function per_port(list, f)
    local result = {}
    each(list, function(p) result[p.id] = f(p) end)
    return result
end

pktgen = {
    screen = function() end,
    quit = function() device.quit = true end,
    set_mac = keep("mac"),
    set_ipaddr = keep("ip"),
    set_proto = function(list, proto) assert(proto == "udp") each(list, function() end) end,
    set = function(list, what, value)
        assert(type(value) == "number", what)
        each(list, function(p)
            if what == "count" or what == "seq_cnt" then assert(math.type(value) == "integer") end
            if what == "rate" then assert(value > 0 and value <= 100, value) end
            p[what] = value
        end)
    end,
    seqTable = function(i, list, t) each(list, function(p) p.seq[i] = t end) end,
    pcap = function(list, state) each(list, function(p) p.pcap = state == "on" end) end,
    start = function(list)
        each(list, function(p) p.sending, p.left = true, p.count > 0 and p.count or nil end)
    end,
    stop = function(list) each(list, function(p) p.sending = false end) end,
    clr = function() each("0,1", function(p) p.ipackets, p.opackets, p.due, p.carry = 0, 0, 0, 0 end) end,
    delay = function(ms)
        assert(math.type(ms) == "integer" and ms > 0)
        now = now + ms / 1000
        pass(ms / 1000)
    end,
    linkState = function(list) return per_port(list, function() return "<UP-" .. LINK .. "-FD>" end) end,
    isSending = function(list) return per_port(list, function(p) return p.sending and "y" or "n" end) end,
    portStats = function(list)
        return per_port(list, function(p) return { opackets = p.opackets, ipackets = p.ipackets, imissed = 0 } end)
    end,
    latency = function(list, state) each(list, function(p) p.latency = state == "on" end) end,
    latsampler_params = function(list, kind, samples, rate, file)
        assert(kind == "simple" and math.type(samples) == "integer" and rate > 0)
        each(list, function(p) p.file = file end)
    end,
    latsampler = function(list, state)
        each(list, function(p)
            if state == "off" then
                assert(p.latency)
                local file = assert(io.open(p.file, "w"))
                file:write("Latency\n")
                for i = 1, 100 do file:write(1000000 * i, "\n") end -- while it starts
                for i = 1, 100 do file:write(1000 * i, "\n") end
                file:close()
            end
        end)
    end,
}

local real_print = print
local function run(script, settings, capacity, source)
    environment = {}
    for name, value in pairs(settings) do environment["PG_" .. name] = value end
    reset(capacity, source)
    package.loaded.common, package.loaded.search = nil, nil
    require("common").clock = function() return now end
    print = function(line) output[#output + 1] = line end
    dofile(scripts .. script)
    print = real_print
    local text = table.concat(output, "\n")
    assert(device.quit, script .. " does not end pktgen")
    return text
end

local passed = 0
local function test(name, f)
    f()
    passed = passed + 1
    print("ok: " .. name)
end

local function has(text, pattern)
    assert(text:find(pattern), pattern .. " is not in:\n" .. text)
end

test("one flow: both ends of it agree, replies come second, nothing is lost below capacity", function()
    local text = run("single-flow.lua", { SECONDS = "3", RATE = "1" }, 1e7)
    -- 148,809.5 frames a second each way: one port's 3 s are 446,428 whole frames.
    has(text, "sent 892856, received 892856, lost 0 %(0.0000 %%%)")
    has(text, "done$")
    assert(device.refused == 0 and device.session)
    local l, w = ports[0], ports[1]
    assert(l.set["mac src"] == w.set["mac dst"] and l.set["mac dst"] == w.set["mac src"])
    assert(l.set["ip dst"] .. "/32" == w.set["ip src"] and w.set["ip dst"] .. "/32" == l.set["ip src"])
    assert(l.sport == w.dport and l.dport == w.sport and l.sport ~= l.dport)
end)

test("loss above capacity is reported", function()
    has(run("single-flow.lua", { SECONDS = "2", RATE = "10" }, 744047), "lost 297619%d %(50.000%d %%%)")
end)

test("captures: replies come second, and originals had time for all flows", function()
    local text = run("flows-pcap.lua", { FLOWS = "1000000", SIZE = "128", RATE = "1", SECONDS = "1" }, 1e9)
    has(text, "lost 0 ")
    assert(device.refused == 0 and ports[0].pcap and ports[1].pcap)
    -- 84,459 frames a second: four times a million take 47.4 s, twice.
    assert(now > 94, now)
end)

test("IMIX: 7 to 4 to 1, each a flow whose reply fits", function()
    has(run("imix.lua", { RATE = "5", SECONDS = "2" }, 1e9), "lost 0 ")
    local counts = {}
    for i = 0, 11 do
        local o, r = ports[0].seq[i], ports[1].seq[i]
        assert(o.sport == r.dport and o.dport == r.sport and o.pktSize == r.pktSize)
        counts[o.pktSize] = (counts[o.pktSize] or 0) + 1
    end
    assert(counts[64] == 7 and counts[570] == 4 and counts[1518] == 1 and ports[0].seq_cnt == 12)
end)

test("RFC 2544: the capacity is found, latency and loss curve are there", function()
    local text = run("rfc2544.lua", { SIZES = "64,1518", TRIAL = "2", RESOLUTION = "0.5", LATENCY = "2" }, 5e6)
    -- 5 million of 14.88 million a second: 33.6 %; at 1518 bytes the link is slower than the device.
    local rate = tonumber(text:match("\n +64 +(%d+%.%d+) +%d+"))
    assert(rate > 33.0 and rate <= 33.61, rate)
    has(text, "\n +1518 +100.00 +1625487 ")
    has(text, "200 samples, us: min 1.0, median 50.0, 99 %% 99.0, max 100.0")
    has(text, "100:66.400, 90:62.667, .*30:0.000, 20:0.000\n")
    assert(device.refused == 0)
end)

test("RFC 2544: what pktgen cannot send does not pass", function()
    local text = run("rfc2544.lua", { SIZES = "64", TRIAL = "2", TESTS = "throughput" }, 1e9, 1e6)
    has(text, "short: %d+ in")
    local rate = tonumber(text:match("\n +64 +(%d+%.%d+) +%d+"))
    assert(rate > 5.5 and rate <= 7.3, rate) -- 1 million of 14.88 are 6.7 %, and a short trial may take 7 % longer
end)

test("RFC 2544: a device that forwards nothing has no throughput", function()
    local text = run("rfc2544.lua", { SIZES = "64", TRIAL = "2", RESOLUTION = "10", TESTS = "throughput,latency" }, 0)
    has(text, "\n +64 +%- +%- +%-")
end)

test("a word where a number belongs is an error that names it", function()
    environment = { PG_RATE = "fast" }
    package.loaded.common = nil
    local ok, message = pcall(require, "common")
    assert(not ok and message:find("PG_RATE=fast: a number is wanted", 1, true), message)
end)

print(passed .. " passed")
