"""GLSL sources: bodies cut into garments by their rest coordinates, rooms with patterns, and a depth-only pass."""

_LIGHT = """
uniform vec3 L, Lc, F, Fc, sky, gnd;
uniform sampler2D sm;
float hash(vec3 p) { p = fract(p * .1031); p += dot(p, p.yzx + 33.33); return fract((p.x + p.y) * p.z); }
float noise(vec3 p) {
  vec3 i = floor(p), f = fract(p); f = f * f * (3. - 2. * f);
  float a = mix(mix(hash(i), hash(i + vec3(1, 0, 0)), f.x),
                mix(hash(i + vec3(0, 1, 0)), hash(i + vec3(1, 1, 0)), f.x), f.y);
  float b = mix(mix(hash(i + vec3(0, 0, 1)), hash(i + vec3(1, 0, 1)), f.x),
                mix(hash(i + vec3(0, 1, 1)), hash(i + vec3(1, 1, 1)), f.x), f.y);
  return mix(a, b, f.z);
}
float lit(vec4 lp) {
  vec3 q = lp.xyz * .5 + .5; if (any(lessThan(q, vec3(0))) || any(greaterThan(q, vec3(1)))) return 1.;
  float s = 0.;
  for (int i = 0; i <= 1; i++) for (int j = 0; j <= 1; j++)
    s += (q.z - .003 < texture(sm, q.xy + (vec2(i, j) - .5) * 1.5 / 1024.).r) ? .25 : 0.;
  return s;
}
vec3 shade(vec3 col, vec3 n, vec4 lp, float extra) {
  float s = lit(lp);
  vec3 amb = mix(gnd, sky, n.z * .5 + .5);
  return col * (amb + Lc * max(dot(n, L), 0.) * s + Fc * max(dot(n, F), 0.)) + extra * Lc * s;
}
"""

BODY_VERTEX = """#version 330
uniform mat4 P, V, LV;
in vec3 p, n, rest; in vec4 region, head; in float grain;
out vec3 wp, wn, rp; out vec4 lp, rg, hd; out float gr;
void main() {
  wp = p; wn = n; rp = rest; rg = region; hd = head; gr = grain; lp = LV * vec4(p, 1); gl_Position = P * V * vec4(p, 1);
}
"""

BODY_FRAGMENT = (
    """#version 330
in vec3 wp, wn, rp; in vec4 lp, rg, hd; in float gr;
uniform vec3 eye, skin, hair, shirt, shirt2, trous, trous2, shoe, belt, stick1, stick2;
uniform vec4 cut, pattern, stickp; uniform vec2 flags;
out vec4 o;
"""
    + _LIGHT
    + """
void main() {
  vec3 n = normalize(wn), col = skin; float gloss = .08; float cloth = 0.;
  if (hd.w > 2.5) {            // the stick
    col = stick1; float s = rp.x;
    float node = stickp.x > 0. ? abs(fract(s * stickp.x) - .5) : 0.;
    if (stickp.x > 0. && node > .47) col *= .55;
    col *= .85 + .3 * hash(vec3(floor(s * 40.), floor(rp.z * 2.), 3.));
    col = mix(col, vec3(.62, .55, .45) * (.6 + .8 * noise(vec3(s * 9., rp.z, 1.))),
              stickp.w * smoothstep(.45, .7, noise(vec3(s * 60., rp.z * 3., 7.))));
    if (s < stickp.y || rp.y < stickp.z) col = stick2;
    gloss = .22;
  } else if (hd.w > .5) {      // an eyeball
    vec2 q = vec2(abs(hd.x) - .5, hd.z); float r = length(q);
    col = r < .055 ? vec3(.02) : (r < .13 ? hair * .6 + vec3(.08, .05, .03) : vec3(.85)); gloss = .3;
  } else {
    float x = abs(hd.x), y = hd.y, z = hd.z;
    bool onhead = z > -8.;
    float wob = .03 * gr;
    bool ear = x > 1.1 && abs(z) < .75 && y > .8 && y < 1.9;
    float line = max(pattern.w - 1.5 * max(y - .35, 0.), -1.);
    bool face = onhead && y < .75;
    if (onhead && z > line + wob * 4. && !ear) {
      col = hair * (.75 + .5 * hash(floor(rp * vec3(400., 400., 60.)))); gloss = .12;
    }
    else if (face && x > .22 && x < .85 && abs(z - .36 - .1 * (x - .5)) < .075) col = mix(skin, hair, .75);
    else if (face && x < .42 && abs(z + 1.17) < .13 * (1. - x * 1.8)) col = skin * vec3(.85, .55, .55);
    else if (!onhead || z < -3.) {
      bool isshirt = rg.x < cut.x + wob && rg.w < cut.w && rg.z > cut.z && (rg.y < .6);
      bool istrous = rg.y < cut.y + wob && rg.z < max(cut.z, .15) && rg.x < 0.;
      if (isshirt) {
        col = shirt; cloth = 1.; float sc = pattern.z;
        if (pattern.x == 1. && fract((rp.z - .35 * abs(rp.x)) / sc) < .4) col = shirt2;
        if (pattern.x == 2. && (fract(rp.x / sc) < .5) != (fract(rp.z / sc) < .5)) col = mix(shirt, shirt2, .6);
        if (pattern.x == 3. && rp.y < 0. && length((vec2(rp.x, rg.z - .62)) / vec2(sc * 1.1, sc * 1.6)) < 1.
            && fract(rp.x * 30. + gr) < .7) col = shirt2;
        if (pattern.x == 4. && rp.y < .02) {
          float lap = rp.x * .9 - (rg.z - .35) * .16; if (abs(lap) < .022) col = shirt * .8;
          if (rg.z > .6 && abs(rp.x) < (rg.z - .6) * .16) { col = skin; cloth = 0.; }
        }
        if (flags.x > .5 && rg.z > .1 && rg.z < .19) col = belt;
      } else if (istrous) {
        col = trous; cloth = 1.;
        if (pattern.y == 1. && rg.y > -.1 && abs(rp.y + .01) < .018 && abs(rp.x) > .12) col = trous2;
        if (rg.z > .1 && rg.z < .16 && flags.x < .5) col = trous * .6;
      } else if (rg.x > 1.9) {  // a hand: palms are lighter and redder than the back, most of all on dark skin
        col = mix(skin, mix(skin, vec3(.86, .62, .53), .55), smoothstep(.0, .5, hd.x));
        col *= 1. - .22 * smoothstep(.0, .5, -hd.x) * noise(rp * 160.);
        if (y > .5) col = mix(skin, vec3(.95, .80, .76), .6);
      } else if (rg.y > 2.02 && flags.y < .5) {
        col = shoe; if (rg.y > 2.02 && rp.z < -9.) col = vec3(.9);
      }
    }
    if (cloth > .5) {
      col *= 1. + .16 * gr; gloss = .02;
    } else col *= 1. + .05 * gr;
  }
  vec3 hv = normalize(L + normalize(eye - wp));
  o = vec4(clamp(shade(col, n, lp, gloss * pow(max(dot(n, hv), 0.), 24.)), 0., 1.), 1);
}
"""
)

ROOM_VERTEX = """#version 330
uniform mat4 P, V, LV;
in vec3 p, n, c1, c2; in vec2 uv; in float pat;
out vec3 wn, a, b; out vec2 t; out vec4 lp; flat out float k;
void main() { wn = n; a = c1; b = c2; t = uv; k = pat; lp = LV * vec4(p, 1); gl_Position = P * V * vec4(p, 1); }
"""

ROOM_FRAGMENT = (
    """#version 330
in vec3 wn, a, b; in vec2 t; in vec4 lp; flat in float k;
uniform sampler2D photo;
out vec4 o;
"""
    + _LIGHT
    + """
void main() {
  vec3 col = a; vec2 f = fract(t); float g = hash(floor(vec3(t * 90., k)));
  if (k == 1.) { if (f.x < .02 || f.y < .02) col = b; else col *= .9 + .2 * hash(vec3(floor(t), 1.)); }  // tiles
  else if (k == 2.) { float r = floor(t.y * 8.); float x = t.x * .7 + hash(vec3(r));
      col *= .75 + .4 * hash(vec3(floor(x), r, 2.))
      + .12 * noise(vec3(t.x * 6., t.y * 160., 1.));
      if (fract(t.y * 8.) < .04 || fract(x) < .006) col *= .5; }  // planks
  else if (k == 3.) { float r = floor(t.y * 12.); float x = t.x * 4. + .5 * mod(r, 2.);
      col = (fract(t.y * 12.) < .1 || fract(x) < .05) ? b : a * (.8 + .4 * hash(vec3(floor(x), r, 3.))); }  // bricks
  else if (k == 4.) { col = mod(floor(t.x) + floor(t.y), 2.) < .5 ? a : b;
      if (f.x < .015 || f.y < .015) col *= .5; }  // mats
  else if (k == 5.) { col = fract(t.x * 3.) < .5 ? a : b; }  // stripes
  else if (k == 6.) { col = mix(a, b, noise(vec3(t * 3., 1.)) * .6 + .4 * noise(vec3(t * 60., 2.))); }  // ground
  else if (k == 7.) { col = texture(photo, t).rgb * 1.1; }
  else col = mix(a, b, clamp(t.y * .35, 0., 1.));  // gradient
  col *= .95 + .1 * g;
  o = vec4(clamp(shade(col, normalize(wn), lp, 0.), 0., 1.), 1);
}
"""
)

DEPTH_VERTEX = """#version 330
uniform mat4 M; in vec3 p; void main() { gl_Position = M * vec4(p, 1); }
"""
DEPTH_FRAGMENT = """#version 330
void main() {}
"""
