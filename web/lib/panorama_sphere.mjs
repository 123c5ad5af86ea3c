// Looks into equirectangular pictures with WebGL 2: one triangle over the canvas, whose fragment shader asks for each
// pixel which way it looks. One context serves every viewer of the page, as browsers give only a few.

const VERTEX = `#version 300 es
out vec2 place;
void main() {
  place = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
  gl_Position = vec4(place, 0.0, 1.0);
}`;

// The level of detail comes from the angle that a pixel sees, not from differences of neighbours: those would leap where
// the left edge meets the right, and at the poles, and draw a blurred line there.
const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
uniform highp sampler2D panorama;
uniform mat3 axes;
uniform vec2 spread;
uniform float pixel;
in vec2 place;
out vec4 colour;
const float PI = 3.14159265358979;
void main() {
  vec2 size = vec2(textureSize(panorama, 0));
  vec3 ray = vec3(place * spread, -1.0);
  float angle = pixel * pow(dot(ray, ray), -0.75);
  vec3 seen = axes * ray;
  float longitude = atan(seen.x, -seen.z), latitude = atan(seen.y, length(seen.xz));
  vec2 at = vec2(longitude / (2.0 * PI) + 0.5, 0.5 - latitude / PI);
  float detail = log2(max(angle * size.y / PI, 1.0));
  vec3 found = textureLod(panorama, at, detail).rgb;
  // Within half a row of a pole the next row is the same one, half a turn further.
  float beyond = 0.5 - min(at.y, 1.0 - at.y) * size.y;
  if (beyond > 0.0) found = mix(found, textureLod(panorama, at + vec2(0.5, 0.0), detail).rgb, beyond);
  colour = vec4(found, 1.0);
}`;

export class Sphere {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.users = new Map(); // who draws -> {texture, source}
    this.listeners = new Map();
    this.lost = false;
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // else it never comes back
      this.lost = true;
      this.users.clear();
      this.#tell();
    });
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.lost = false;
      this.#prepare();
      this.#tell();
    });
    const options = { alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "low-power" };
    this.gl = this.canvas.getContext("webgl2", options);
    if (this.gl) this.#prepare();
  }

  get ready() {
    return Boolean(this.program) && !this.lost;
  }

  // The longest side of a picture that the device takes.
  get limit() {
    return this.most ?? 0;
  }

  // told() is called when the context is lost and when it is back.
  use(user, told) {
    if (!this.listeners.has(user)) this.listeners.set(user, told);
  }

  leave(user) {
    this.listeners.delete(user);
    const held = this.users.get(user);
    this.users.delete(user);
    if (held && !this.lost) this.gl.deleteTexture(held.texture);
  }

  // Draws what a user sees of a picture (an ImageBitmap) onto the canvas's lower left corner, so many pixels large.
  draw(user, picture, look, width, height) {
    const { canvas, gl } = this;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    gl.viewport(0, 0, width, height);
    this.#show(user, picture);
    const [across, up] = look.spread;
    gl.useProgram(this.program);
    gl.uniformMatrix3fv(this.places.axes, false, look.axes);
    gl.uniform2f(this.places.spread, across, up);
    gl.uniform1f(this.places.pixel, (2 * across) / width);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  #tell() {
    for (const told of this.listeners.values()) told();
  }

  #prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    this.program = gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
    if (!this.program) {
      if (!gl.isContextLost()) console.warn("Panorama Preview: no shader,", gl.getProgramInfoLog(program));
      return;
    }
    this.places = Object.fromEntries(
      ["axes", "spread", "pixel"].map((name) => [name, gl.getUniformLocation(program, name)]),
    );
    this.most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  }

  #show(user, picture) {
    const { gl } = this;
    let held = this.users.get(user);
    if (!held) {
      held = { texture: gl.createTexture(), source: null };
      this.users.set(user, held);
    }
    gl.bindTexture(gl.TEXTURE_2D, held.texture);
    if (held.source === picture) return;
    held.source = picture;
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.REPEAT);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    gl.generateMipmap(gl.TEXTURE_2D);
  }
}

let shared = null;

// The page's one sphere, made when it is first asked for.
export function sharedSphere() {
  return (shared ??= new Sphere());
}
