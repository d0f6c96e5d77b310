-- SPDX-License-Identifier: Apache-2.0
-- Throughput, latency and frame loss rate as RFC 2544, section 26 has them, both directions at once (section 14):
--   pktgen ... -f rfc2544.lua
-- The rate of a trial is that of each port in percent of its link; results add both directions.
--
-- Settings beside those of common.lua (PG_RATE and PG_SECONDS have no meaning); PG_ stands before each name:
--   SIZES       frame sizes with FCS (64,128,256,512,1024,1280,1518: section 9.1)
--   TRIAL       seconds of a trial (10; section 24 wants 60 for the results that count)
--   RESOLUTION  the search ends when it knows the rate to so many percent of the link (1)
--   TOLERANCE   percent of its frames that a trial may lose and still pass (0, as section 26.1 has it)
--   MAX_RATE    percent of the link where search and loss curve begin (100)
--   LATENCY     seconds of the stream for the latency (10; section 26.2 wants 120); 0: none
--   TESTS       throughput,latency,loss: those that are wanted
--   FLOWS       with `-s 0:originals.pcap -s 1:replies.pcap` (flows.py): their number of packets; PG_SIZES must be their one size.
--               0: the one flow of common.lua (0)
--
-- Where this is not the RFC: the seconds above; five seconds' rest between trials (section 23) are two and a half; the latency is taken
-- from frames of 128 bytes that pktgen adds to the stream, one in 10 ms, and the figures are of all in its second half, not the average of
-- 20 trials of one tagged frame each. A trial in which pktgen could not send at the rate is marked `short` and does not pass.
local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local common = require("common")
local search = require("search")

local sizes = common.numbers("SIZES", "64,128,256,512,1024,1280,1518")
local seconds = common.setting("TRIAL", 10)
local resolution = common.setting("RESOLUTION", 1)
local tolerance = common.setting("TOLERANCE", 0)
local max_rate = math.min(common.setting("MAX_RATE", 100), 100)
local latency_seconds = common.setting("LATENCY", 10)
local flows = common.setting("FLOWS", 0)
local tests = "," .. common.setting("TESTS", "throughput,latency,loss") .. ","

local function wanted(test)
    return tests:find("," .. test .. ",", 1, true) ~= nil
end

local function load(size, rate)
    common.load(flows == 0 and size or nil, rate)
end

-- Sends a known number of frames from each port at a rate, and counts what arrives (section 23).
local function trial(size, rate)
    local frames = math.max(1, math.floor(common.line_rate(common.mbits, size) * rate / 100 * seconds))
    load(size, rate)
    pktgen.set(common.both, "count", frames)
    pktgen.clr()
    local start = common.clock()
    local deadline = start + 3 * seconds + 5
    pktgen.start(common.both)
    local elapsed
    repeat
        pktgen.delay(20)
        local sending = pktgen.isSending(common.both)
        elapsed = common.clock() - start
    until (sending[common.lan] == "n" and sending[common.wan] == "n") or common.clock() > deadline
    pktgen.stop(common.both)
    common.settle()
    local t = common.totals()
    local result = {
        rate = rate,
        lost = math.max(0, t.lost),
        loss = t.sent > 0 and 100 * math.max(0, t.lost) / t.sent or 0,
        pps = 2 * frames / seconds,
        -- A fiftieth, and a tenth of a second for starting and stopping.
        short = t.sent < 2 * frames or elapsed > 1.02 * seconds + 0.1,
    }
    result.passed = not result.short and result.loss <= tolerance
    common.say("  %7.2f %% %12.0f/s: sent %d, received %d, lost %d (%.4f %%)%s", rate, result.pps, t.sent, t.received, result.lost,
        result.loss, result.short and string.format(", short: %d in %.1f s", t.sent, elapsed) or "")
    return result
end

-- Section 26.2, at the rate of the throughput. Nanoseconds of all samples of both directions, ascending.
local function latencies(size, rate)
    local files = { [common.lan] = os.tmpname(), [common.wan] = os.tmpname() }
    load(size, rate)
    pktgen.set(common.both, "count", 0)
    pktgen.latency(common.both, "on")
    for port, file in pairs(files) do
        -- Every frame that carries a time: pktgen adds 100 a second.
        pktgen.latsampler_params(tostring(port), "simple", math.min(50000, math.ceil(latency_seconds * 200)), 1000000, file)
    end
    pktgen.latsampler(common.both, "on")
    pktgen.start(common.both)
    pktgen.delay(math.floor(latency_seconds * 1000))
    pktgen.stop(common.both)
    common.settle()
    pktgen.latsampler(common.both, "off")
    pktgen.latency(common.both, "off")
    -- The second half of the stream, as the RFC tags its frame in the middle: pktgen writes all its frames anew when it starts, or when its
    -- sampler does, and does not look at what comes in for some 200 ms.
    local samples = {}
    for _, file in pairs(files) do
        local list = {}
        for line in io.lines(file) do
            list[#list + 1] = tonumber(line) -- the first line is a heading, no number
        end
        table.move(list, #list // 2 + 1, #list, #samples + 1, samples)
        os.remove(file)
    end
    table.sort(samples)
    return samples
end

local function print_latency(size, rate)
    local samples = latencies(size, rate)
    if #samples == 0 then
        common.say("  latency at %.2f %%: no frame with a time came back", rate)
        return
    end
    local q = function(share) return samples[math.max(1, math.ceil(share * #samples))] / 1000 end
    common.say("  latency at %.2f %%: %d samples, us: min %.1f, median %.1f, 99 %% %.1f, max %.1f", rate, #samples, q(0), q(0.5), q(0.99), q(1))
    return { min = q(0), median = q(0.5), p99 = q(0.99), max = q(1) }
end

local function measure(size)
    local row = { size = size }
    common.say("%d bytes, 100 %% is %.0f frames a second each way", size, common.line_rate(common.mbits, size))
    if wanted("throughput") or wanted("latency") then
        common.say(" throughput (section 26.1)")
        row.throughput = search.throughput(function(rate) return trial(size, rate) end, max_rate, resolution)
    end
    if wanted("latency") and latency_seconds > 0 and row.throughput then
        common.say(" latency (section 26.2)")
        row.latency = print_latency(size, row.throughput.rate)
    end
    if wanted("loss") then
        common.say(" frame loss rate (section 26.3)")
        row.curve = search.frame_loss(function(rate) return trial(size, rate) end, max_rate)
    end
    return row
end

local function summary(rows)
    common.say("%6s %10s %14s %10s %10s %10s %10s %10s  %s", "bytes", "% of link", "frames/s", "Mbit/s", "min us", "median", "99 %", "max",
        "frame loss rate, percent lost at percent of the link")
    for _, row in ipairs(rows) do
        local t, l, curve = row.throughput, row.latency, {}
        for _, point in ipairs(row.curve or {}) do
            curve[#curve + 1] = string.format("%g:%.3f%s", point.rate, point.loss, point.short and " short" or "")
        end
        common.say("%6d %10s %14s %10s %10s %10s %10s %10s  %s", row.size, t and string.format("%.2f", t.rate) or "-",
            t and string.format("%.0f", t.pps) or "-", t and string.format("%.0f", t.pps * row.size * 8 / 1e6) or "-",
            l and string.format("%.1f", l.min) or "-", l and string.format("%.1f", l.median) or "-",
            l and string.format("%.1f", l.p99) or "-", l and string.format("%.1f", l.max) or "-", table.concat(curve, ", "))
    end
end

common.main(function()
    common.prepare()
    if flows > 0 then pktgen.pcap(common.both, "on") end
    load(sizes[1], math.min(max_rate, 10))
    local rate = common.line_rate(common.mbits, sizes[1]) * math.min(max_rate, 10) / 100
    common.establish(math.max(1, 4 * flows / rate))
    local rows = {}
    for _, size in ipairs(sizes) do
        rows[#rows + 1] = measure(size)
    end
    summary(rows)
end)
