-- What streamfx.lua does without OBS: `luajit obs_pure.lua streamfx.lua`.

obslua = {}
dofile(arg[1])
local sfx = streamfx

local function same(found, wanted, what)
  if found ~= wanted then error(what .. ": " .. tostring(found) .. " instead of " .. tostring(wanted), 2) end
end

-- JSON
local text = [[{"b": [1, -2.5e3, true, null], "a": {"x": "q\"\\\n\u00fc\u20ac\ud83d\ude00ü"}, "none": [], "no": {}}]]
local value = sfx.json_decode(text)
same(value.b[2], -2500, "a number")
same(value.b[4], sfx.null, "null")
same(value.a.x, 'q"\\\nü€😀ü', "a string")
same(#value.none, 0, "an empty list")
for _, broken in ipairs({ "", "{", '{"a"', '{"a":1', "[1,", '"x', "{]", '{"a" 1}', "nul", ("["):rep(100000) }) do
  same(sfx.json_decode(broken), nil, "broken: " .. broken:sub(1, 9))
end
same(sfx.json_encode('a"\\\n\1ü'), [["a\u0022\u005c\u000a\u0001ü"]], "a string")
same(sfx.json_encode(0.25), "0.25", "a number")
same(sfx.json_encode(2147483647), "2147483647", "a whole number")
same(sfx.json_encode({ seed = sfx.null }), '{"seed":null}', "an object")

-- addresses
same(sfx.parse_address(" HTTP://127.0.0.1:8080/ ").base, "http://127.0.0.1:8080", "an address")
same(sfx.parse_address("http://box").port, 80, "no port")
same(sfx.parse_address("https://a.example:8443").tls, true, "https")
for _, wrong in ipairs({ "", "127.0.0.1:8080", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://u:p@x", "http://x/y", "http://x\r\nA: b" }) do
  same(sfx.parse_address(wrong), nil, wrong)
end
same(table.concat(sfx.numbers_of("localhost"), "."), "127.0.0.1", "localhost")
same(sfx.numbers_of("1.2.3.256"), nil, "no address")

-- answers, as they come in bit by bit
local head = "HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 2\r\n\r\n"
same(sfx.parse_answer(head:sub(1, 30), false), nil, "half a head")
same(sfx.parse_answer(head .. "{", false), nil, "half a body")
same(select(2, sfx.parse_answer(head .. "{}", false)), "{}", "a body")
same(sfx.parse_answer(head .. "{", true), 0, "one that broke off")
same(sfx.parse_answer("HTTP/1.0 204 No Content\r\n\r\n", true), 204, "no length")
same(sfx.parse_answer("SSH-2.0-x\r\n", true), 0, "no HTTP")

-- controls
local function row(property, schema)
  return sfx.row_of("p", sfx.json_decode(property), sfx.json_decode(schema or "{}"))
end
same(row('{"type": "string", "setup": true}'), nil, "of the set-up")
same(row('{"type": "array"}'), nil, "no control for it")
local share = row('{"type": "number", "minimum": 0, "maximum": 1, "title": "Ink"}')
same(share.title .. share.kind .. share.step .. tostring(share.slider), "Inkfloat0.01true", "a share")
local seed = row('{"type": "integer", "minimum": 0, "maximum": 2147483647}')
same(seed.kind .. seed.step .. tostring(seed.slider), "int1false", "a seed")
local steps = row('{"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}')
same(steps.low .. " " .. steps.high, "1 8", "bounds that are excluded")
same(row('{"anyOf": [{"type": "integer"}, {"type": "null"}], "default": null}').kind, "auto", "what may be left out")
local mood = row('{"$ref": "#/$defs/Mood", "default": "calm"}', '{"$defs": {"Mood": {"enum": ["calm", "wild"], "type": "string"}}}')
same(mood.kind .. mood.values[2] .. mood.initial, "choicewildcalm", "a choice")
same(row('{"type": "string", "examples": ["ink"]}').kind, "suggested", "a text with examples")
print("fine")
